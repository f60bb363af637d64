/** Runs every operation of the drivers once, for checks of their statements. */
import { assert } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import type * as SqlDrivers from "../../src/sql/SqlDrivers.ts"
import { startRequest } from "../../src/testing/suites/backend/fixture.ts"

const ids = Arr.map(Arr.range(1, 20), (n) => `task-${n}`)
const never = undefined

const ask = (id: string) => startRequest(id, `token of ${id}`, { task: "t", deliveryMode: "at-most-once" })

/** Runs the operations. */
export const everything = ({ backend, broker }: SqlDrivers.Drivers) =>
  Effect.gen(function* () {
    yield* backend.create(
      Arr.map(ids, (id) => ({
        id,
        task: "t",
        incarnation: "",
        queue: "default",
        key: id,
        payloadHash: "h",
        delayMillis: 0,
        expiresMillis: 60_000,
        retentionMillis: 60_000,
        reservedMillis: 60_000
      }))
    )
    yield* backend.create([
      {
        id: "x",
        task: "t",
        incarnation: "",
        queue: "default",
        key: ids[0],
        payloadHash: "h",
        delayMillis: 0,
        expiresMillis: never,
        retentionMillis: never,
        reservedMillis: never
      }
    ])
    const published = Arr.map(ids, (id) => ({ id, incarnation: "", generation: 0 }))
    yield* backend.markPublished(published)
    // again, for those that are marked
    yield* backend.markPublished(published)
    yield* broker.publish(
      Arr.map(ids, (id, index) => ({
        id,
        task: "t",
        queue: "q",
        priority: index % 3,
        delayMillis: index === 19 ? 1 : 0,
        body: "{}"
      }))
    )
    yield* Effect.sleep(5)
    const claimed = yield* broker.claim({ queues: ["q"], max: 20, leaseMillis: 60_000, worker: "w" })
    assert(Arr.isReadonlyArrayNonEmpty(claimed))
    assert.strictEqual(claimed.length, 20)
    const handles = Arr.map(claimed, ({ handle }) => handle)
    yield* broker.claim({ queues: ["q", "other"], max: 20, leaseMillis: 60_000, worker: "w" })
    yield* broker.publish(
      Arr.map(ids, (id) => ({ id, task: "t", queue: "again", priority: 0, delayMillis: 0, body: "{}" }))
    )
    const again = { queues: Arr.of("again"), max: 20, leaseMillis: 60_000, worker: "w", claimId: "again" }
    yield* broker.claim(again)
    assert.strictEqual((yield* broker.claim({ ...again, max: 2, isRetry: true })).length, 2)
    yield* broker.renew(handles, 60_000)
    yield* backend.start(Arr.map(ids, ask))
    yield* backend.renew(
      Arr.map(ids, (id) => ({ id, token: `token of ${id}`, leaseMillis: 60_000, progress: "1" }))
    )
    yield* backend.settle(
      Arr.map(ids, (id, index) => ({
        id,
        token: `token of ${id}`,
        outcome:
          index === 0
            ? {
                _tag: "Failure",
                exit: "1",
                retentionMillis: 60_000,
                deadLetter: { reason: "Failed", queue: "q", body: "{}", retentionMillis: never }
              }
            : index === 1
              ? { _tag: "Retry", afterMillis: 0, failure: "no luck\n" }
              : { _tag: "Success", exit: "1", retentionMillis: 60_000 }
      }))
    )
    yield* broker.release([{ handle: handles[0], afterMillis: 0 }])
    yield* broker.ack(handles)
    yield* backend.subscribe(ids)
    yield* backend.readHistory!(ids)
    yield* broker.publish([
      { id: "task-2", task: "t", queue: "late", priority: 0, delayMillis: 60_000, body: "{}" }
    ])
    yield* backend.cancel(["task-2"])
    yield* broker.publish([
      { id: "task-4", task: "t", queue: "late", priority: 0, delayMillis: 60_000, body: "{}" }
    ])
    const purged = yield* broker.purge("late", 10)
    assert(Arr.isReadonlyArrayNonEmpty(purged))
    yield* backend.withdraw(purged)
    yield* backend.listDeadLetters({ limit: 10 })
    yield* backend.listDeadLetters({ limit: 10, task: "t", after: { at: 1, order: 1 } })
    yield* backend.listDeadLetterIds({ limit: 10 })
    yield* backend.listDeadLetterIds({ limit: 10, task: "t", after: { at: 1, order: 1 } })
    yield* backend.reopen(["task-1:0"], 1000)
    yield* backend.removeDeadLetters(["task-1:0"])
    yield* backend.forget(["task-3"])
    const { documents } = backend
    assert(documents !== undefined)
    const document = { kind: "k", key: "a" }
    yield* documents.write([
      { ...document, expected: never, version: "1", value: "x" },
      { ...document, expected: "1", version: "2", value: "x" },
      { ...document, expected: "2", version: "3", value: never }
    ])
    yield* documents.get([document])
    yield* documents.list({ kind: "k", after: "a", limit: 10 })
    yield* backend.sweep(100)
    yield* fused(backend)
  })

const fused = Effect.fnUntraced(function* ({ fusion }: SqlDrivers.Drivers["backend"]) {
  assert.isDefined(fusion)
  const ids = Arr.map(Arr.range(1, 20), (n) => `fused-${n}`)
  yield* fusion.enqueue(
    Arr.map(ids, (id) => ({
      record: {
        id,
        task: "t",
        incarnation: "",
        queue: "default",
        key: undefined,
        payloadHash: "",
        delayMillis: 0,
        expiresMillis: never,
        retentionMillis: 60_000,
        reservedMillis: never
      },
      message: { id, task: "t", queue: "fused", priority: 0, delayMillis: 0, body: "{}" }
    }))
  )
  const startDefaults = [
    {
      task: "t",
      leaseMillis: 60_000,
      maxCrashes: 3,
      retentionMillis: 60_000,
      deadLetterRetentionMillis: 60_000
    }
  ]
  const asked = {
    queues: Arr.of("fused"),
    max: 20,
    leaseMillis: 60_000,
    worker: "w",
    claimId: "one",
    startDefaults
  }
  if (fusion.claim === undefined) return
  const claimed = yield* fusion.claim(asked)
  assert.strictEqual((yield* fusion.claim({ ...asked, isRetry: true })).length, 20)
  yield* fusion.claim({ ...asked, max: 19, isRetry: true })
  yield* fusion.claim(asked)
  assert(Arr.isReadonlyArrayNonEmpty(claimed))
  yield* fusion.settle(
    Arr.map(claimed, ({ delivery, run }) => ({
      handle: delivery.handle,
      settlement: {
        id: delivery.id!,
        token: run!.token,
        outcome: { _tag: "Success", exit: "1", retentionMillis: 60_000 }
      }
    }))
  )
})
