// Starts Swagger UI. A file of its own, because the page's policy forbids scripts within the page.
window.ui = SwaggerUIBundle({
  url: document.querySelector('meta[name="spec"]').content,
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  filter: true,
  persistAuthorization: false,
  tryItOutEnabled: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
