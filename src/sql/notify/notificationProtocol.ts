/** What the notifications of a store consist of. */
import { Schema } from "effect"

/** A hint of another process. */
export interface Hint {
  readonly topic: string
  readonly ids: ReadonlyArray<string>
}

/** Receives the hints of other processes. */
export interface Subscriber {
  readonly onHint: (hint: Hint) => void
  /** Hints may have been lost. */
  readonly onResync: () => void
}

/** The payload of a notification. No ids: there are too many, so that the subscribers resync. */
export const Payload = Schema.fromJsonString(
  Schema.Struct({ source: Schema.String, topic: Schema.String, ids: Schema.Array(Schema.String) })
)

/** The topic of the notifications that a process sends to itself, by which it knows that it receives. */
export const ECHO = "echo"

/** The channel of a store. */
export interface Channel {
  readonly name: string
  /** The id of this process. */
  readonly source: string
}
