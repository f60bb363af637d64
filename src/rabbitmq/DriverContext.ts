/**
 * What the operations of the driver share.
 */
import type { Clock } from "effect"
import type { CallTimeout } from "../internal/driver/callTimeout.ts"
import type { PrefetchBuffer } from "./PrefetchBuffer.ts"
import type { Publisher } from "./Publisher.ts"
import type { RabbitError } from "./RabbitError.ts"
import type { ReconnectingConnection } from "./ReconnectingConnection.ts"
import type { Topology } from "./Topology.ts"
import type { UnackedMessages } from "./UnackedMessages.ts"

/** The parts of one driver. */
export interface DriverContext {
  readonly clock: Clock.Clock
  /** The connection that consumes and acks. */
  readonly consuming: ReconnectingConnection
  readonly topology: Topology
  readonly publisher: Publisher
  readonly unacked: UnackedMessages
  readonly prefetchBuffer: PrefetchBuffer
  /** Bounds a call by `callTimeout`. */
  readonly limited: CallTimeout<RabbitError>
}
