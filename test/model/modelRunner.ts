/** Runs the operations of the ports on the store and on the model, and compares the answers. */
import { Effect } from "effect"
import type {
  Fusion,
  NewRecord,
  Outcome,
  ParkedMessage,
  PublishedRecord,
  Reopened,
  Settlement,
  Start,
  Started
} from "../../src/BackendDriver.ts"
import type { Envelope, PurgedMessage } from "../../src/BrokerDriver.ts"
import * as Suite from "../../src/testing/suites/Suite.ts"
import { BrokerRunner } from "./brokerRunner.ts"
import { inModelTime, toDeadLetter } from "./deadLetters.ts"
import * as Messages from "./messages.ts"
import type { Content, Operation } from "./modelState.ts"
import type { Enqueue } from "./promises.ts"
import * as Requests from "./requests.ts"
import * as Runs from "./runs.ts"
import * as Tasks from "./tasks.ts"

/** Returns the answer to a batch of one. */
const only = Suite.only

/** Runs operations on store and model. */
export class ModelRunner extends BrokerRunner {
  // #region Enqueuing

  private applyCreate(record: NewRecord, enqueue: Enqueue) {
    const answer = this.applyModel(Requests.create(this.tasks, record, this.now))
    if (answer._tag === "Created") {
      this.invariants.reset(record.id)
      this.promises.recordCreated(record.id, enqueue)
    }
    return answer
  }

  create(record: NewRecord, enqueue: Enqueue) {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const answer = yield* this.call(only(this.backend.create([record])))
      yield* this.assertEqual("create", answer, this.applyCreate(record, enqueue))
      return answer
    })
  }

  markPublished(record: PublishedRecord): Operation<boolean> {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const answer = yield* this.call(only(this.backend.markPublished([record])))
      yield* this.assertEqual(
        "the mark",
        answer,
        this.applyModel(Requests.markPublished(this.tasks, record, this.now))
      )
      return answer
    })
  }

  enqueueFused(record: NewRecord, message: Envelope, content: Content, fusion: Fusion) {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const answer = yield* this.call(only(fusion.enqueue([{ record, message }])))
      yield* this.assertEqual("the fused enqueue", answer, this.applyCreate(record, content.enqueue))
      if (answer._tag === "Created") {
        this.contents.set(message.body, content)
        this.messages = Messages.publish(this.messages, message, this.now)
      }
      return answer
    })
  }

  // #endregion

  // #region Runs

  /** Compares the store's answer to a start with the model's. */
  assertStarted(request: Start, started: Started): Operation {
    return Effect.gen({ self: this }, function* () {
      const before = Tasks.find(this.tasks, request.id, this.now)
      const repeated = before?.run?.token === request.token
      const expected = this.applyModel(Runs.start(this.tasks, request, this.now))
      const millis = (busy: number) => ({
        _tag: "Busy",
        millis: this.roundToModel(busy, expected._tag === "Busy" ? expected.millis : -1)
      })
      yield* this.assertEqual("start", started._tag === "Busy" ? millis(started.millis) : started, expected)
      if (started._tag !== "Run" || repeated) return
      const { body, generation, id } = request
      yield* this.assertInvariant(this.invariants.onRun(id, started.fence))
      yield* this.assertInvariant(this.promises.onRun(id, generation, this.contentOf(body).enqueue))
    })
  }

  start(request: Start): Operation<Started> {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const started = yield* this.call(only(this.backend.start([request])))
      this.logAnswer(started)
      yield* this.assertStarted(request, started)
      return started
    })
  }

  renewRun(id: string, token: string, leaseMillis: number, progress: string | undefined): Operation {
    return Effect.gen({ self: this }, function* () {
      const renewal = { id, token, leaseMillis, progress }
      const renewed = yield* this.call(only(this.backend.renew([renewal])))
      this.logAnswer(renewed)
      yield* this.assertEqual("renew", renewed, this.applyModel(Runs.renew(this.tasks, renewal, this.now)))
    })
  }

  private assertSettled(settlement: Settlement, generation: number, answer: string): Operation {
    return Effect.gen({ self: this }, function* () {
      const { id, outcome, token } = settlement
      const expected = this.applyModel(Runs.settle(this.tasks, settlement, this.now))
      const [first] = expected
      yield* this.assertEqual("settle", answer, expected.find((one) => one === answer) ?? first)
      const isFinal = outcome._tag === "Success" || outcome._tag === "Failure"
      if (answer === "Stored" && isFinal)
        yield* this.assertInvariant(this.invariants.onTerminalWrite(id, generation, token))
    })
  }

  settle(settlement: Settlement, generation: number) {
    return Effect.gen({ self: this }, function* () {
      const answer = yield* this.call(only(this.backend.settle([settlement])))
      this.logAnswer(answer)
      yield* this.assertSettled(settlement, generation, answer)
      return answer
    })
  }

  settleFused(settlement: Settlement, generation: number, handle: string, settle: Fusion["settle"]) {
    return Effect.gen({ self: this }, function* () {
      const answer = yield* this.call(only(settle([{ settlement, handle }])))
      this.logAnswer(answer)
      yield* this.assertSettled(settlement, generation, answer)
      if (answer === "Lost") return answer
      const afterMillis = answer === "Cancelled" ? undefined : waitOf(settlement.outcome)
      this.messages =
        afterMillis === undefined
          ? Messages.ack(this.messages, handle)[1]
          : Messages.release(this.messages, { handle, afterMillis }, this.now)
      return answer
    })
  }

  // #endregion

  // #region Stops, letters and time

  cancel(id: string): Operation {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const answer = yield* this.call(only(this.backend.cancel([id])))
      this.logAnswer(answer)
      yield* this.assertEqual("cancel", answer, this.applyModel(Requests.cancel(this.tasks, id, this.now)))
    })
  }

  withdraw(message: PurgedMessage): Operation {
    return Effect.map(Effect.andThen(this.followStore, this.call(this.backend.withdraw([message]))), () => {
      this.tasks = Requests.withdraw(this.tasks, message, this.now)
    })
  }

  forget(id: string): Operation {
    return Effect.map(Effect.andThen(this.followStore, this.call(this.backend.forget([id]))), () => {
      const owner = this.promises.ownerOf(id)
      const known = Tasks.find(this.tasks, id, this.now) !== undefined
      if (known && owner !== undefined) this.promises.giveUp(owner)
      this.tasks = Requests.forget(this.tasks, id, this.now)
      this.invariants.reset(id)
    })
  }

  park(parked: ParkedMessage): Operation {
    return Effect.map(this.call(this.backend.parkMessage([parked])), () => {
      this.tasks = Requests.park(this.tasks, parked, this.now)
    })
  }

  reopen(letterId: string, reservedMillis: number): Operation<Reopened | undefined> {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const reopened = yield* this.call(only(this.backend.reopen([letterId], reservedMillis)))
      const { tasks } = this
      const expected = this.applyModel(Requests.reopen(tasks, letterId, reservedMillis, this.now))
      const inTime = reopened && { ...reopened, letter: inModelTime(this, reopened.letter, expected?.letter) }
      yield* this.assertEqual(
        "reopen",
        inTime,
        expected && { letter: toDeadLetter(expected.letter), replayable: expected.replayable }
      )
      const { body, generation, taskId } = expected?.letter ?? { body: "", generation: 0, taskId: null }
      const id = taskId ?? ""
      const before = Tasks.find(tasks, id, this.now)
      const isOpened = before !== this.tasks.tasks.get(id) && (before === undefined || Tasks.isFinal(before))
      if (!isOpened) return reopened
      const created = before === undefined
      if (created) this.invariants.reset(id)
      this.promises.reopened(id, this.contentOf(body).enqueue, generation + 1, created)
      return reopened
    })
  }

  removeLetter(id: string): Operation {
    return Effect.gen({ self: this }, function* () {
      const removed = yield* this.call(only(this.backend.removeDeadLetters([id])))
      const isOutlived =
        this.tasks.letters.has(id) && Tasks.findDeadLetter(this.tasks, id, this.now) === undefined
      const expected = this.applyModel(Requests.removeDeadLetter(this.tasks, id, this.now))
      // the store may still remove a dead letter that is past its retention
      if (!isOutlived) yield* this.assertEqual("the removal of a dead letter", removed, expected)
    })
  }

  readonly sweep: Operation = Effect.gen({ self: this }, function* () {
    // of a reservation that has expired too, a store may do either: end the task, or remove it
    yield* this.followStore
    const swept = yield* this.call(this.backend.sweep(1000))
    const { least, lost, most } = this.applyModel(Tasks.sweep(this.tasks, this.now))
    this.logAnswer(swept)
    const { handled } = swept
    if (handled < least || handled > most + this.unswept) {
      yield* this.disagree(`the sweep dealt with ${handled}, and not with ${least} to ${most + this.unswept}`)
    }
    yield* this.assertEqual("the lost tasks of the sweep", swept.lost.toSorted(), lost)
    this.unswept = 0
  })

  // #endregion
}

/** Returns how long a message waits after an outcome; `undefined`: it is removed. */
export const waitOf = (outcome: Outcome): number | undefined => {
  if (outcome._tag === "Retry") return outcome.afterMillis
  return outcome._tag === "Release" ? 0 : undefined
}
