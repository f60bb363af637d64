/** What is sent in place of a message. */
/** The text of a message, with other fields if they are given. */
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

/** The text of a message in which the value of one field is any text. */
export const messageWith = (id: string, field: string, value: string): string =>
  messageOf(id, { [field]: "here" }).replace(`"${field}":"here"`, `"${field}":${value}`)

const deep = 100_000

/** JSON that is nested so deep that it can be read, and not written. */
export const nested = `${"[".repeat(deep)}${"]".repeat(deep)}`

/** Bodies that are no messages of the task with that id. */
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
