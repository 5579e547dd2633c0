// Copy buttons for what is to be pasted, and a word when the server is gone. The page works without this.
"use strict";

for (const block of document.querySelectorAll("pre.paste")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = "Copied";
    } catch {
      // The browser does not let us: have it selected, for the keyboard to copy.
      window.getSelection().selectAllChildren(block);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  block.before(button);
}

document.body.addEventListener("htmx:afterRequest", (event) => {
  document.getElementById("gone").hidden = event.detail.xhr.status !== 0;
});
