/** The form for a provider's model. What is typed here stays in these fields: nothing is stored, so a key is gone with the page. */

import { byId } from "./dom.js";

/** Each with a model to begin with. */
const PROVIDERS = {
  openai: { name: "OpenAI", model: "text-embedding-3-small" },
  cohere: { name: "Cohere", model: "embed-v4.0", needsProxy: true },
  voyage: { name: "Voyage AI", model: "voyage-4", needsProxy: true },
  jina: { name: "Jina AI", model: "jina-embeddings-v3" },
  mistral: { name: "Mistral AI", model: "mistral-embed" },
  gemini: { name: "Gemini", model: "gemini-embedding-001" },
  nomic: { name: "Nomic", model: "nomic-embed-text-v1.5" },
  tei: { name: "text-embeddings-inference", model: "", needsAddress: true },
};

export function remoteForm({ onChoose }) {
  const provider = byId("remote-provider");
  const model = byId("remote-model");
  const key = byId("remote-key");
  const address = byId("remote-address");
  const note = byId("remote-note");

  for (const [value, { name }] of Object.entries(PROVIDERS)) provider.add(new Option(name, value));
  provider.addEventListener("change", adapt);
  adapt();
  byId("remote-form").addEventListener("submit", (event) => {
    event.preventDefault();
    onChoose(read());
  });

  function adapt() {
    const { name, model: usual, needsProxy, needsAddress } = PROVIDERS[provider.value];
    model.placeholder = usual || "the server’s own";
    model.value = "";
    // A key or address of another one must not go to this one.
    key.value = "";
    address.value = "";
    address.required = Boolean(needsAddress);
    address.placeholder = needsAddress ? "http://localhost:8080" : "the provider’s own";
    note.textContent = needsProxy ? `${name} lets no pages in: give a proxy’s address.` : "";
  }

  function read() {
    const { name, model: usual } = PROVIDERS[provider.value];
    const chosen = model.value.trim() || usual;
    const to = address.value.trim();
    return {
      name: chosen || name,
      origin: `by ${name}: your texts are sent ${to ? `to ${to}` : "there"}`,
      provider: provider.value,
      options: {
        model: chosen,
        // The panels take products for cosines.
        normalize: true,
        ...(key.value.trim() && { apiKey: key.value.trim() }),
        ...(to && { baseUrl: to }),
      },
    };
  }
}
