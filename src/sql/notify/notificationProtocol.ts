/** What the notifications of a store consist of, however they travel. */
import { type Effect, Option, Schema, type Scope } from "effect"
import type { StoreError } from "../Database.ts"

/** A hint of another process. */
export interface Hint {
  readonly topic: string
  /** `undefined`: other processes may not have notified this one yet, so that anything of the topic may have changed. */
  readonly ids: ReadonlyArray<string> | undefined
}

/** Receives the hints of other processes. */
export interface Subscriber {
  readonly onHint: (hint: Hint) => void
  /** Hints may have been lost. */
  readonly onResync: () => void
}

/** What a process registers for topics for. It is compared by its identity. */
export interface Interest {
  readonly isWanted: () => boolean
  /** Whether somebody waits for the hints. Others may come seconds later, where receiving them costs calls. */
  readonly isUrgent: boolean
}

/** The notifications of one store. */
export interface Notifications {
  /** Notifies the other processes that have registered for the topic. */
  readonly notify: (topic: string, ids: ReadonlyArray<string>) => void
  /** Receives hints until the scope closes. */
  readonly subscribe: (subscriber: Subscriber) => Effect.Effect<void, never, Scope.Scope>
  /** Registers for topics for as long as they are wanted. Hints of later commits are received. */
  readonly registerTopics: (topics: Iterable<string>, interest: Interest) => Effect.Effect<void, StoreError>
  /** Removes what processes that are gone have left. */
  readonly trim: Effect.Effect<void, StoreError>
}

const Payload = Schema.fromJsonString(
  Schema.Struct({ source: Schema.String, topic: Schema.String, ids: Schema.Array(Schema.String) })
)
const decode = Schema.decodeUnknownOption(Payload)

/** A decoded notification. No ids: there are too many, so that the subscribers resync. */
export type Notification = typeof Payload.Type

/** Returns the notification of a payload; `undefined` if it is none. */
export const decodePayload = (payload: string): Notification | undefined =>
  Option.getOrUndefined(decode(payload))

/** The topic of the notifications that a process sends to itself, by which it knows that it receives. */
export const ECHO = "echo"

/** The channel of a store. */
export interface Channel {
  readonly name: string
  /** The id of this process. */
  readonly source: string
}
