"""Makes one call of the API: guard, rate limit, authentication, sending, retries, closing.

This package does not know what a call is for. What several calls achieve together, such as a
deploy that is never repeated by mistake or the wait for a status, belongs to `deployments`,
`polling` and the packages above them; what a request or an answer means belongs to `api`.
"""
