/** Bodies that are sent in place of messages. */
/** Returns the text of a message, with the given fields. */
export const messageOf = (id: string, fields: Readonly<Record<string, unknown>> = {}): string =>
  JSON.stringify({
    v: 1,
    id,
    generation: 0,
    task: "count",
    queue: "default",
    payload: { n: 1, millis: 0 },
    retries: 0,
    priority: 100,
    ...fields
  })

/** Returns the text of a message in which one field has any raw JSON text as its value. */
export const messageWith = (id: string, field: string, value: string): string =>
  messageOf(id, { [field]: "here" }).replace(`"${field}":"here"`, `"${field}":${value}`)

const deep = 100_000

/** JSON that is nested too deeply to be written, though it can be parsed. */
export const nested = `${"[".repeat(deep)}${"]".repeat(deep)}`

/** Bodies that do not decode to a message of the task with that id. */
export const undecodableBodies: ReadonlyArray<(id: string) => string> = [
  () => "",
  () => " ",
  () => "hello",
  () => "}{",
  () => "null",
  () => "7",
  () => "NaN",
  () => "[1, 2, 3]",
  () => "{}",
  () => "🌶️ grüße \u2028 \ufeff",
  () => "base64:",
  () => "base64-text:e30=",
  () => "[".repeat(deep),
  () => nested,
  (id) => messageOf(id).slice(0, -1),
  (id) => `\ufeff${messageOf(id)}`,
  (id) => `${messageOf(id)}${messageOf(id)}`,
  (id) => JSON.stringify([messageOf(id)]),
  (id) => messageWith(id, "payload", nested),
  (id) => messageWith(id, "payload", `{"__proto__":{"n":1,"millis":0}}`),
  (id) => messageOf(id, { v: 2 }),
  (id) => messageOf(id, { v: "1" }),
  (id) => messageOf(id, { v: null }),
  (id) => messageWith(id, "v", "1e999"),
  (id) => messageOf(`not ${id}`),
  (id) => messageOf(id, { task: "another" }),
  (id) => messageOf(id, { generation: 1 }),
  (id) => messageOf(id, { payload: { n: "1", millis: 0 } }),
  (id) => messageOf(id, { payload: null })
]
