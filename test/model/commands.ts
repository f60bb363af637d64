/** The commands of a sequence. A command is plain data; its effect depends on the commands before it. */
import { Arbitrary, Schema } from "effect"

/** How a producer enqueues: in one step, record first, or with the message alone, as it has no backend. */
export type EnqueueMode = "fused" | "reserveFirst" | "unrecorded"

/** How a run ends. */
export type Ending =
  | "success"
  | "failure"
  | "failure without dead letter"
  | "retry"
  | "delayed retry"
  | "release"

/** Picks one of several: 0 is the newest; a larger index wraps around. */
type Index = number

/** A command. Times are in units. */
export type Command =
  | {
      readonly _tag: "Enqueue"
      /** A given id, or a kind of generated ids. */
      readonly id: string
      /** Forgets the task that has the id before. */
      readonly forgets: boolean
      /** Enqueues under another task name than the id's. */
      readonly otherTask: boolean
      readonly key: string | undefined
      readonly payload: string
      readonly delay: number
      readonly expires: number | undefined
      readonly priority: number
      readonly queue: Index
      readonly mode: EnqueueMode
      /** The producer stops after that many steps, for good unless it is continued. */
      readonly steps: number
    }
  /** Lets a producer that stopped take more steps. */
  | { readonly _tag: "Continue"; readonly producer: Index; readonly steps: number }
  | { readonly _tag: "Duplicate"; readonly message: Index }
  | {
      readonly _tag: "Claim"
      readonly worker: string
      readonly max: number
      readonly fused: boolean
      /** The worker does not receive the answer. */
      readonly lost: boolean
    }
  | { readonly _tag: "RetryClaim"; readonly worker: string; readonly max: number }
  /** Takes a worker's next step with a claimed message. */
  | {
      readonly _tag: "NextStep"
      readonly claim: Index
      readonly ending: Ending
      readonly fused: boolean
    }
  | { readonly _tag: "RepeatStart"; readonly claim: Index }
  | {
      readonly _tag: "Settle"
      readonly claim: Index
      readonly ending: Ending
      readonly fused: boolean
    }
  | {
      readonly _tag: "RenewRun"
      readonly claim: Index
      readonly progress: string | undefined
    }
  | { readonly _tag: "RenewClaim"; readonly claim: Index }
  | { readonly _tag: "Ack"; readonly claim: Index }
  | {
      readonly _tag: "ReleaseMessage"
      readonly claim: Index
      readonly after: number
      readonly preserveDueTime: boolean
    }
  /** Ends a connection that holds claims. Elsewhere a worker disconnects by doing nothing more. */
  | { readonly _tag: "Disconnect"; readonly worker: string }
  | { readonly _tag: "Cancel"; readonly id: string }
  | { readonly _tag: "Forget"; readonly id: string }
  /** Removes the messages of a queue, and ends their tasks unless the program that does it stops before. */
  | { readonly _tag: "Purge"; readonly queue: Index; readonly withdraws: boolean }
  /** Ends the tasks of messages that were purged before, also once more. */
  | { readonly _tag: "Withdraw"; readonly purge: Index }
  | { readonly _tag: "AdvanceTime"; readonly units: number }
  | { readonly _tag: "Sweep" }
  | { readonly _tag: "Compare"; readonly watch: boolean }
  | { readonly _tag: "Park"; readonly letter: string; readonly retention: number | undefined }
  /** Replays a dead letter. The operator stops after that many steps, for good unless the replay is continued. */
  | { readonly _tag: "Replay"; readonly letter: Index; readonly steps: number }
  | { readonly _tag: "ContinueReplay"; readonly replay: Index; readonly steps: number }
  | { readonly _tag: "RemoveLetter"; readonly letter: Index }
  /** Repeats the last repeatable operation. */
  | { readonly _tag: "RepeatLast" }

/**
 * A sequence, and whether the state is compared after every command or only at `Compare`: a comparison ends overdue
 * tasks.
 */
export interface Sequence {
  readonly comparesEach: boolean
  readonly commands: ReadonlyArray<Command>
}

/** The ids of the tasks. The last two stand for ids that are generated: of those that exist, the newest. */
export const ids = ["a", "b", "c", "d", "p", "q"] as const

const upTo = (most: number): Arbitrary.Arbitrary<number> =>
  Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: most })))

/** One of several values; shrinking prefers the first. */
const one = <const A>(...values: ReadonlyArray<A>): Arbitrary.Arbitrary<A> =>
  Arbitrary.map(upTo(values.length - 1), (n) => values[n]!)

const worker = one("v", "w")
/** Mostly the newest claim. */
const claim = one(0, 0, 0, 1, 1, 2, 3)
const fused = one(false, true)
const ending = one<Ending>(
  "success",
  "failure",
  "retry",
  "release",
  "failure",
  "retry",
  "delayed retry",
  "failure without dead letter"
)

const tag = <const Tag extends string>(_tag: Tag) => Arbitrary.Constant(_tag)

const enqueue = {
  _tag: tag("Enqueue"),
  id: one(...ids),
  forgets: one(false, false, true),
  otherTask: one(false, false, false, false, false, false, false, true),
  key: one(undefined, undefined, undefined, "k1", "k2"),
  payload: one("1", "1", "1", "2"),
  delay: one(0, 0, 0, 1.5, 3.5),
  expires: one(undefined, undefined, 1.5, 4.5),
  priority: one(100, 100, 0, 255),
  queue: one(0, 0, 1),
  steps: one(3, 3, 3, 1, 2, 2)
}

/** The weight of each command. */
const commands: ReadonlyArray<readonly [weight: number, command: Arbitrary.Arbitrary<Command>]> = [
  [12, Arbitrary.all({ ...enqueue, mode: one<EnqueueMode>("reserveFirst", "fused", "unrecorded") })],
  [5, Arbitrary.all({ _tag: tag("Continue"), producer: one(0, 0, 1), steps: one(3, 3, 1) })],
  [
    10,
    Arbitrary.all({
      _tag: tag("Claim"),
      worker,
      max: one(1, 2, 4),
      fused,
      lost: one(false, false, false, false, true)
    })
  ],
  [28, Arbitrary.all({ _tag: tag("NextStep"), claim: one(0, 0, 0, 1), ending, fused })],
  [12, Arbitrary.all({ _tag: tag("AdvanceTime"), units: one(1, 2, 3) })],
  [8, Arbitrary.all({ _tag: tag("Compare"), watch: one(false, true) })],
  [4, Arbitrary.all({ _tag: tag("Settle"), claim, ending, fused })],
  [5, Arbitrary.all({ _tag: tag("Cancel"), id: one(...ids) })],
  [3, Arbitrary.all({ _tag: tag("Forget"), id: one(...ids) })],
  [4, Arbitrary.all({ _tag: tag("Purge"), queue: one(0, 1), withdraws: one(true, true, false) })],
  [2, Arbitrary.all({ _tag: tag("Withdraw"), purge: one(0, 0, 1) })],
  [3, Arbitrary.all({ _tag: tag("Sweep") })],
  [5, Arbitrary.all({ _tag: tag("RepeatLast") })],
  [3, Arbitrary.all({ _tag: tag("RenewRun"), claim, progress: one(undefined, "1", "2") })],
  [2, Arbitrary.all({ _tag: tag("RenewClaim"), claim })],
  [2, Arbitrary.all({ _tag: tag("RepeatStart"), claim })],
  [2, Arbitrary.all({ _tag: tag("Ack"), claim })],
  [2, Arbitrary.all({ _tag: tag("ReleaseMessage"), claim, after: one(0, 1.5), preserveDueTime: fused })],
  [4, Arbitrary.all({ _tag: tag("RetryClaim"), worker, max: one(1, 2, 4) })],
  [3, Arbitrary.all({ _tag: tag("Disconnect"), worker })],
  [5, Arbitrary.all({ _tag: tag("Replay"), letter: one(0, 0, 1, 2), steps: one(4, 4, 4, 1, 2, 3) })],
  [3, Arbitrary.all({ _tag: tag("ContinueReplay"), replay: one(0, 0, 1), steps: one(4, 4, 1) })],
  [2, Arbitrary.all({ _tag: tag("RemoveLetter"), letter: one(0, 0, 1) })],
  [1, Arbitrary.all({ _tag: tag("Park"), letter: one("p1", "p2"), retention: one(undefined, 2.5) })],
  [4, Arbitrary.all({ _tag: tag("Duplicate"), message: one(0, 0, 1, 2) })]
]

const command: Arbitrary.Arbitrary<Command> = Arbitrary.flatMap(
  one(...commands.flatMap(([weight, command]) => Array.from({ length: weight }, () => command))),
  (command) => command
)

/** Sequences of at most that many commands. Two arrays are joined, as many single arrays would be empty. */
export const sequences = (maxLength: number): Arbitrary.Arbitrary<Sequence> => {
  const some = Arbitrary.array(command, { maxLength: Math.ceil(maxLength / 2) })
  return Arbitrary.all({
    comparesEach: one(true, false),
    commands: Arbitrary.map(Arbitrary.all([some, some]), (halves) => halves.flat())
  })
}
