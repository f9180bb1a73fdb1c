"""The objects with the methods of the API's calls, such as `client.tags`: one module a group.

Each method builds the request of one API call and passes it to `ApiClient.call`, which adds rate
limit, retries and the network. Every method raises the errors of `ApiClient.call`: `NotSent`,
`NoAnswer`, `UnreadableAnswer`, `Unauthorized`, `RateLimited`, `ServerError`, `NotAllowed`,
`ClientClosed`. A wrong argument raises `InvalidRequest` before anything is sent. A method's own
`Raises` section lists the errors beyond these.

A module here has the classes of one resource, which extend `resource.Resource`, and the facts that
only its calls need; every list is a `resource.Listing`. What several calls do together belongs
above, in `deployments`, `batch` or `pool`. This file imports nothing: the client imports a group at
its first use, because most programs use few of them.
"""
