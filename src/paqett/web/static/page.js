// Comforts for pages that do without them: nothing here is needed.
"use strict";
for (const field of document.querySelectorAll("[data-time-zone]")) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone) field.value = zone;
}
for (const button of document.querySelectorAll("[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  if (!source || !navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(source.textContent.trim());
    button.textContent = "Copied";
  });
}
for (const file of document.querySelectorAll("input[type=file][data-into]")) {
  const target = document.getElementById(file.dataset.into);
  file.closest(".field").hidden = false;
  file.addEventListener("change", async () => {
    if (file.files.length) target.value = await file.files[0].text();
  });
}
