/** A process of its own on a store: `node child.ts <what> <filename>`. It does one thing for each line it reads. */
import { createInterface } from "node:readline"
import { Array as Arr, Effect } from "effect"
import * as SqliteStore from "../../src/sqlite/SqliteStore.ts"

const [what, filename] = process.argv.slice(2) as ["open" | "drain" | "publish" | "settle" | "cancel", string]

const now = () => performance.timeOrigin + performance.now()
const say = (line: unknown) => Effect.sync(() => console.log(String(line)))

const program = Effect.gen(function* () {
  const { backend, broker } = yield* SqliteStore.makeDrivers({ filename })
  yield* say("open")
  if (what === "open") return
  if (what === "drain") {
    const ids: Array<string | undefined> = []
    while (true) {
      const claimed = yield* broker.claim({ queues: ["q"], max: 7, leaseMillis: 60_000, worker: "w" })
      if (!Arr.isReadonlyArrayNonEmpty(claimed)) return yield* say(JSON.stringify(ids))
      ids.push(...claimed.map(({ id }) => id))
      yield* broker.ack(Arr.map(claimed, ({ handle }) => handle))
    }
  }
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
  while (true) {
    const line = yield* Effect.promise(() => lines.next())
    if (line.done === true) return
    const id = line.value
    const token = crypto.randomUUID()
    if (what === "settle") {
      yield* backend.start([
        {
          id,
          task: "t",
          generation: 0,
          token,
          worker: "w",
          queue: "q",
          body: "{}",
          leaseMillis: 60_000,
          deliveryMode: "at-least-once",
          maxCrashes: 3,
          expiresMillis: undefined,
          retentionMillis: undefined,
          deadLetterRetentionMillis: undefined
        }
      ])
    }
    const before = now()
    if (what === "publish") {
      yield* broker.publish([{ id, task: "t", queue: "q", priority: 0, delayMillis: 0, body: "{}" }])
    } else if (what === "cancel") {
      yield* backend.cancel([id])
    } else {
      yield* backend.settle([
        { id, token, outcome: { _tag: "Success", exit: "1", retentionMillis: undefined } }
      ])
    }
    yield* say(before)
  }
})

await Effect.runPromise(Effect.scoped(program))
