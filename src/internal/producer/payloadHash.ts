/** The hash by which the payloads of two calls with the same key or id are compared. */
import { createHash } from "node:crypto"
import { HashMap, HashSet, Predicate } from "effect"

/**
 * Returns the hash of a payload, from its value and what the value encodes to. Payloads that differ only in the order of an
 * object's keys, in the order of a set or a map, or in a field that is `undefined` or absent, have the same hash. Payloads
 * that otherwise encode to different JSON have different hashes.
 */
export const payloadHash = (value: unknown, json: unknown): string =>
  createHash("sha256")
    .update(JSON.stringify(canonical(json, value) ?? null))
    .digest("base64url")

/**
 * Sorts the keys of JSON. The value beside it tells what JSON does not: which `null` is `undefined`, and which array is a
 * set or a map.
 */
const canonical = (json: unknown, value: unknown): unknown => {
  if (Array.isArray(json)) {
    const unordered = isUnordered(value)
    const values: ReadonlyArray<unknown> = unordered ? Array.from(value) : Array.isArray(value) ? value : []
    const items = json.map((item, index) => canonical(item, values[index]))
    return unordered ? sortedByText(items) : items
  }
  if (!Predicate.isObject(json) || typeof json["toJSON"] === "function") return json
  const known = Predicate.isObject(value) ? value : undefined
  // without a prototype, a key `__proto__` is one like any other
  const sorted: Record<string, unknown> = Object.create(null)
  for (const key of Object.keys(json).sort()) {
    const field = known !== undefined && Object.hasOwn(known, key) ? known[key] : json[key]
    if (json[key] === null && field === undefined) continue
    sorted[key] = canonical(json[key], field)
  }
  return sorted
}

/** Sorts JSON by its text, which is that of equal items alone. */
const sortedByText = (items: ReadonlyArray<unknown>): ReadonlyArray<unknown> =>
  items
    .map((item) => ({ item, text: JSON.stringify(item) }))
    .sort((one, other) => (one.text < other.text ? -1 : one.text > other.text ? 1 : 0))
    .map(({ item }) => item)

const isUnordered = (value: unknown): value is Iterable<unknown> =>
  value instanceof Set || value instanceof Map || HashSet.isHashSet(value) || HashMap.isHashMap(value)
