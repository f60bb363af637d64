import { Effect } from "effect"
import { PayloadInvalid } from "../../TaskFailed.ts"
import * as TaskCodec from "../task/TaskCodec.ts"

/** Returns the encoded exit of a dead letter that a store cannot decode, as `issue` says. Drivers know no other exit. */
export const payloadInvalidExit = (issue: string): Effect.Effect<string> =>
  Effect.orDie(TaskCodec.untyped.encodeExit({ _tag: "Failure", reason: new PayloadInvalid({ issue }) }))
