// Verifies a Standard Webhooks request without detectd's code or its library: node's own crypto.
// stdin: {"secret": "whsec_…", "headers": {…}, "body": "…"}; stdout: the type in the body; exit 1: not authentic.
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

const { secret, headers, body } = JSON.parse(readFileSync(0, "utf8"));
const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
const signed = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
const expected = createHmac("sha256", key).update(signed, "utf8").digest();

const authentic = headers["webhook-signature"].split(" ").some((given) => {
  const [version, encoded] = given.split(",");
  const signature = Buffer.from(encoded, "base64");
  return version === "v1" && signature.length === expected.length && timingSafeEqual(signature, expected);
});
const ageSeconds = Math.abs(Date.now() / 1000 - Number(headers["webhook-timestamp"]));

if (!authentic || ageSeconds > 300 || headers["webhook-id"].includes(".")) {
  console.error("not authentic");
  process.exit(1);
}
console.log(JSON.parse(body).type);
