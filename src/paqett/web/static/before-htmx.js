// htmx notes each page's path in the browser's session storage. The privacy policy says that nothing
// is kept in the browser but the cookie, so htmx is shown no storage; it can do without.
"use strict";
Object.defineProperty(window, "sessionStorage", { value: null, configurable: true });
