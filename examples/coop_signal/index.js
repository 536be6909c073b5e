// A signal for Coop (ROOST): the probability that a picture and its words together break the policy.
//
// Coop's rules compare the score, from 0 to 1, with a threshold. The service must be allowed to fetch the
// pictures of the items: diptych serve ... --fetch-from pictures.example.org

const SIGNAL = "DIPTYCH_MEME_SCORE";
const SECONDS = 15; // more than the deadline of the service, so that its own words arrive

const config = [
  { key: "url", label: "Address of diptych serve", required: true, inputType: "text", placeholder: "http://127.0.0.1:8000" },
  { key: "apiKey", label: "Key", required: false, inputType: "password" },
  { key: "label", label: "Label whose score counts; empty for that of the policy", required: false, inputType: "text" },
  { key: "textField", label: "Field of the text", required: false, inputType: "text", placeholder: "text" },
  { key: "imageField", label: "Field of the picture", required: false, inputType: "text", placeholder: "image" },
];

const section = (id, title, label, value) => ({ id, title, fields: [{ label, value }] });

export const manifest = {
  id: "DIPTYCH",
  name: "diptych",
  version: "0.1.0",
  description: "Scores a picture together with its words, on a machine of your own.",
  requiresConfig: true,
  configurationFields: config,
  signalTypeIds: [SIGNAL],
  modelCard: {
    modelName: "The model that your service serves",
    version: "see GET /v1/models",
    sections: [
      section("trainingData", "Training Data", "Overview", "That of the model you serve; its card names it."),
      section("policyAndTaxonomy", "Policy and Taxonomy", "Scope", "The labels of your policy file."),
      section("annotationMethodology", "Annotation Methodology", "Method", "That of the data set you trained on."),
      section("performanceBenchmarks", "Performance and Benchmarks", "Where", "metrics in GET /v1/models."),
      section("biasAndLimitations", "Bias and Limitations", "Limits", "Run diptych audit and diptych calibrate --groups before use."),
      section("implementationGuidance", "Implementation Guidance", "Thresholds", "Take those of your policy, not the recommended ones."),
      section("relevantLinks", "Relevant Links", "Description", "GET /openapi.json of your service."),
    ],
  },
};

const plain = (value) => (value !== null && typeof value === "object" && "value" in value ? value.value : value);
const urlOf = (value) => {
  const found = plain(value);
  return typeof found === "string" ? found : found?.url;
};

// The meme of an item; a rule may also name one field alone, which comes as a tagged value.
export function memeOf(input, settings) {
  const data = input.context?.item?.data;
  const alone = input.value?.type === "IMAGE" ? { image: input.value } : { text: input.value };
  const text = plain(data ? data[settings.textField || "text"] : alone.text);
  const url = urlOf(data ? data[settings.imageField || "image"] : alone.image);
  const meme = { id: input.contentId ?? null, text: typeof text === "string" ? text : null };
  return url ? { ...meme, image: { url } } : meme;
}

async function run(input, getCredential) {
  const settings = await getCredential(input.orgId);
  const headers = { "content-type": "application/json" };
  if (settings.apiKey) headers["x-api-key"] = settings.apiKey;
  const response = await fetch(`${settings.url.replace(/\/+$/, "")}/v1/score`, {
    method: "POST",
    headers,
    body: JSON.stringify(memeOf(input, settings)),
    signal: AbortSignal.timeout(1000 * SECONDS),
  });
  const answer = await response.json();
  // A signal without a score must fail: 0 would say that the item is harmless.
  if (!response.ok) throw new Error(`diptych: ${answer.type}: ${answer.detail}`);
  const label = settings.label || answer.decision?.label || answer.answer;
  const score = answer.scores[label];
  if (score === undefined) throw new Error(`diptych: no label ${label}; there are ${Object.keys(answer.scores)}`);
  return { outputType: { scalarType: "NUMBER" }, score };
}

export function createSignals({ integrationId, getCredential }) {
  const signal = {
    id: { type: SIGNAL },
    displayName: "Picture and words together",
    description: "Probability, from 0 to 1, that a picture and its words together break the policy.",
    docsUrl: null,
    recommendedThresholds: { highPrecisionThreshold: 0.9, highRecallThreshold: 0.2 },
    supportedLanguages: "ALL",
    pricingStructure: { type: "FREE" },
    eligibleInputs: ["FULL_ITEM", "STRING", "IMAGE"],
    outputType: { scalarType: "NUMBER" },
    contextNeeds: { includeFullItem: true },
    getCost: () => 0,
    needsMatchingValues: false,
    eligibleSubcategories: [],
    needsActionPenalties: false,
    integration: integrationId,
    allowedInAutomatedRules: true,
    run: (input) => run(input, getCredential),
    async getDisabledInfo(orgId) {
      const settings = await getCredential(orgId);
      return settings?.url ? { disabled: false } : { disabled: true, disabledMessage: "Set the address of diptych serve." };
    },
  };
  return [{ signalTypeId: SIGNAL, signal }];
}

export default { manifest, createSignals };
