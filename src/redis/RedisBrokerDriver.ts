/** The broker in Redis: each operation runs one script for a batch. */
import { Array as Arr, Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { BrokerDriver } from "../BrokerDriver.ts"
import type { ClaimsByTask } from "./ClaimsByTask.ts"
import { isPermanent } from "./isPermanent.ts"
import type { MessageClaims } from "./MessageClaims.ts"
import type { ReadySignal } from "./ReadySignal.ts"
import type { ScriptRunner } from "./ScriptRunner.ts"
import { ack } from "./scripts/ack.ts"
import { claim } from "./scripts/claim.ts"
import { counts } from "./scripts/counts.ts"
import { publish } from "./scripts/publish.ts"
import { purge } from "./scripts/purge.ts"
import { reject } from "./scripts/reject.ts"
import { release } from "./scripts/release.ts"
import { renewClaims } from "./scripts/renewClaims.ts"

/** Scores are exact up to some 400 years from now. */
const MAX_DELAY_MILLIS = 12_000_000_000_000

/** Makes the driver. */
export const make = (
  runner: ScriptRunner,
  claims: MessageClaims,
  claimByTask: ClaimsByTask,
  readySignal: ReadySignal
): BrokerDriver<RedisError> => {
  const claimMessages = claimByTask.over(claim(runner, claims))
  return {
    name: "redis",
    capabilities: {
      priorities: 256,
      ordered: runner.keyspace.shards === 1,
      repeatableClaims: true,
      lease: "store",
      maxBytes: runner.maxBytes,
      maxDelayMillis: MAX_DELAY_MILLIS
    },
    isPermanent,
    publish: publish(runner),
    claim: (request) =>
      Effect.map(
        claimMessages(request),
        Arr.map(({ delivery }) => delivery)
      ),
    setAside: claimByTask.setAside,
    ready: readySignal.ready,
    renew: renewClaims(runner),
    ack: ack(runner),
    release: release(runner),
    reject: reject(runner),
    counts: counts(runner),
    purge: purge(runner)
  }
}
