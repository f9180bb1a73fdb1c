// Logs in with the API token: it gets a login link for it, and opens that.

const form = document.getElementById("login");
const field = document.getElementById("token");
const problem = document.getElementById("problem");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  try {
    const answer = await fetch("/_emulator/login", {
      method: "POST",
      headers: { Authorization: `token ${field.value.trim()}` },
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(answer.status === 401 ? "This is not the token." : body.message);
    field.value = "";
    location.replace(`/${new URL(body.url).search}`);
  } catch (error) {
    problem.textContent = error.message;
  }
});
