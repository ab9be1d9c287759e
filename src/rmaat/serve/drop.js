// Sends a dropped or chosen file to the page's function as its name and its content in base64.
// `element`, `props` and `trigger` are Gradio's: the component, its settings, and its events.
const input = element.querySelector("input");
const zone = element.querySelector("label");

function send(file) {
  // The page's function has the message about the limit.
  if (file.size > props.most_bytes) {
    trigger("upload", { name: file.name, content: null });
    return;
  }
  const reader = new FileReader();
  reader.onload = () =>
    trigger("upload", { name: file.name, content: reader.result.split(",")[1] ?? "" });
  reader.readAsDataURL(file);
}

input.addEventListener("change", () => {
  if (input.files.length > 0) send(input.files[0]);
  // The same file may be chosen again.
  input.value = "";
});
zone.addEventListener("dragover", () => zone.classList.add("over"));
zone.addEventListener("dragleave", () => zone.classList.remove("over"));
zone.addEventListener("drop", (event) => {
  zone.classList.remove("over");
  if (event.dataTransfer.files.length > 0) send(event.dataTransfer.files[0]);
});
// A file that misses the zone would replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
