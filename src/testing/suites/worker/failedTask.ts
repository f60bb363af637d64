/** A task that has failed, for tests of terminal states and replays. */
import { assert } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as DeadLetters from "../../../DeadLetters.ts"
import * as Task from "../../../Task.ts"
import type { Fixture } from "./fixture.ts"

/** The task that fails. */
export const Fussy = Task.make("fussy", {
  payload: Schema.String,
  success: Schema.String,
  error: Schema.String
})

/** Makes a task fail, and returns its handle, its message and its dead letter. */
export const failFussy = Effect.fnUntraced(function* (t: Fixture) {
  const worker = yield* t.startWorker(
    [Fussy],
    Fussy.toLayer(() => Effect.fail("not today"))
  )
  const handle = yield* Fussy.delay("hello")
  yield* t.awaitReason(handle, "Failed")
  yield* worker.stop
  const [letter] = yield* DeadLetters.list(Fussy)
  assert(letter !== undefined && typeof letter.raw === "string", "there is a dead letter")
  return { handle, letter, body: letter.raw }
})
