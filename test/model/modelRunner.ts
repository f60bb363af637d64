/** Runs the operations of the ports on the store and on the model, and compares the answers. */
import { Effect } from "effect"
import type {
  ClaimedMessage,
  DeadLetter,
  Fusion,
  NewRecord,
  Outcome,
  ParkedMessage,
  Settlement,
  Start,
  Started
} from "../../src/BackendDriver.ts"
import type { ClaimRequest, Delivery, Envelope, Release } from "../../src/BrokerDriver.ts"
import * as Suite from "../../src/testing/suites/Suite.ts"
import { inModelTime, toDeadLetter } from "./deadLetters.ts"
import * as Messages from "./messages.ts"
import { type Failure, ModelFixture } from "./modelFixture.ts"
import * as Requests from "./requests.ts"
import * as Runs from "./runs.ts"
import { StoreInvariants } from "./storeInvariants.ts"
import * as Tasks from "./tasks.ts"

/** An operation on store and model. */
export type Operation<A = void> = Effect.Effect<A, Failure>

/** Returns the answer to a batch of one. */
const only = Suite.only

/** Runs operations on store and model. */
export class ModelRunner extends ModelFixture {
  tasks: Tasks.Tasks = Tasks.empty
  messages: Messages.Messages = Messages.empty
  readonly invariants = new StoreInvariants()
  /** The last operation that is safe to repeat. */
  lastRepeatable: Operation<unknown> | undefined
  private bodies = 0

  get backend() {
    return this.store.backend
  }
  get broker() {
    return this.store.broker
  }

  /** Runs an operation that is safe to repeat. */
  repeatable<A>(operation: Operation<A>): Operation<A> {
    return Effect.suspend(() => {
      this.lastRepeatable = operation
      return operation
    })
  }

  /** Returns a unique body for a message. */
  nextBody(id: string): string {
    return `${id}${++this.bodies}`
  }

  /** Returns when a claim lapses that is made or renewed now. */
  private leaseEnd(millis: number): number {
    return this.broker.capabilities.lease === "store" ? this.now + millis : Infinity
  }

  /** Fails with a violated invariant. */
  assertInvariant(wrong: string | undefined): Operation {
    return wrong === undefined ? Effect.void : this.disagree(wrong)
  }

  /** Advances the model and returns its answer. */
  applyModel<A>([answer, after]: Tasks.Step<A>): A {
    this.tasks = after
    return answer
  }

  /** Tasks that reads no longer show and that the sweep may still have to remove. */
  private unswept = 0

  /**
   * Removes stranded reservations that the store no longer has. A reservation that was not published within its
   * retention is removed by the sweep at the latest; until then the model follows the store.
   */
  readonly followStore: Operation = Effect.suspend(() => {
    const stranded = [...this.tasks.tasks.values()].filter((task) => Tasks.isStranded(task, this.now))
    return Effect.forEach(
      stranded,
      ({ id }) =>
        Effect.map(this.call(only(this.backend.read([id]))), (found) => {
          if (found === undefined) {
            this.tasks = Tasks.remove(this.tasks, id)
            this.unswept++
          }
          // the read has ended what had expired
          else this.tasks = Tasks.read(this.tasks, id, this.now)[1]
        }),
      { discard: true }
    )
  })

  // #region Enqueuing

  private applyCreate(record: NewRecord) {
    const answer = this.applyModel(Requests.create(this.tasks, record, this.now))
    if (answer._tag === "Created") {
      this.invariants.reset(record.id)
      this.invariants.accepted.delete(record.id)
    }
    return answer
  }

  create(record: NewRecord) {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const answer = yield* this.call(only(this.backend.create([record])))
      yield* this.assertEqual("create", answer, this.applyCreate(record))
      return answer
    })
  }

  publish(envelope: Envelope): Operation {
    return Effect.map(this.call(this.broker.publish([envelope])), () => {
      this.messages = Messages.publish(this.messages, envelope, this.now)
    })
  }

  markPublished(id: string): Operation {
    return Effect.map(this.call(this.backend.markPublished([id])), () => {
      this.tasks = Requests.markPublished(this.tasks, id, this.now)
    })
  }

  enqueueFused(record: NewRecord, message: Envelope, { enqueue }: Fusion) {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const answer = yield* this.call(only(enqueue([{ record, message }])))
      yield* this.assertEqual("the fused enqueue", answer, this.applyCreate(record))
      if (answer._tag === "Created") this.messages = Messages.publish(this.messages, message, this.now)
      return answer
    })
  }

  // #endregion

  // #region Claims

  /** Checks that a delivered message was ready and first in order. */
  private assertDelivered(delivery: Delivery, leaseMillis: number): Operation {
    return Effect.gen({ self: this }, function* () {
      const { ageMillis, body, handle } = delivery
      const { capabilities } = this.broker
      const candidates = Messages.ready(this.messages, this.setting.queues, this.now)
      const message = candidates.find(({ envelope }) => envelope.body === body)
      if (message === undefined) return yield* this.disagree(`${String(body)} was delivered and is not ready`)
      const { id, queue, task } = message.envelope
      const given = {
        id: delivery.id,
        task: delivery.task,
        queue: delivery.queue,
        generation: delivery.generation ?? 0
      }
      yield* this.assertEqual("the delivery", given, {
        id,
        task,
        queue,
        generation: message.envelope.generation ?? 0
      })
      const before =
        capabilities.ordered === false || capabilities.lease === "connection"
          ? undefined
          : candidates.find((other) => Messages.precedes(other, message))
      if (before !== undefined) {
        return yield* this.disagree(`${String(body)} was delivered before ${before.envelope.body}`)
      }
      if (Messages.heldBy(this.messages, handle) !== undefined) {
        return yield* this.disagree(`handle ${handle} was delivered twice`)
      }
      const age = this.now - message.waitsSince
      if (capabilities.lease === "store")
        yield* this.assertEqual("the age", this.roundToModel(ageMillis, age), age)
      this.messages = Messages.claim(this.messages, message, handle, this.leaseEnd(leaseMillis))
    })
  }

  /**
   * Checks that a claim took as many messages as were ready. A message that a connection returned may still be in
   * transit.
   */
  private assertClaimedEnough(count: number, max: number): Operation {
    const left = Messages.ready(this.messages, this.setting.queues, this.now).length
    const enough = count >= max || left === 0 || this.broker.capabilities.lease === "connection"
    return enough && count <= max
      ? Effect.void
      : this.disagree(`of ${max} messages, ${count} were delivered, and ${left} are ready`)
  }

  /** Runs a claim and checks its deliveries. */
  claim(
    call: Effect.Effect<ReadonlyArray<ClaimedMessage>, unknown>,
    { leaseMillis, max }: ClaimRequest
  ): Operation<ReadonlyArray<ClaimedMessage>> {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const taken = yield* this.call(call)
      this.logAnswer(
        taken.map(({ delivery, run }) => [delivery.body, ...(run === undefined ? [] : [run.started])])
      )
      for (const { delivery } of taken) yield* this.assertDelivered(delivery, leaseMillis)
      yield* this.assertClaimedEnough(taken.length, max)
      return taken
    })
  }

  /** Repeats a claim. `before`: the deliveries of the first attempt. */
  retryClaim(
    call: Effect.Effect<ReadonlyArray<ClaimedMessage>, unknown>,
    { leaseMillis, max }: ClaimRequest,
    before: ReadonlyArray<Delivery>
  ): Operation<ReadonlyArray<ClaimedMessage>> {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const taken = yield* this.call(call)
      this.logAnswer(
        taken.map(({ delivery, run }) => [delivery.body, ...(run === undefined ? [] : [run.started])])
      )
      const held = before.filter(({ handle }) => Messages.heldBy(this.messages, handle) !== undefined)
      const live = held.filter(({ handle }) => Messages.isLive(this.messages, handle, this.now))
      const handles = new Set(held.map(({ handle }) => handle))
      const again = taken.filter(({ delivery }) => handles.has(delivery.handle))
      const repeatable = this.broker.capabilities.repeatableClaims === true
      // a lapsed claim may be repeated or claimed again
      const least = repeatable ? Math.min(live.length, max) : 0
      if (again.length < least || (!repeatable && again.length > 0)) {
        return yield* this.disagree(`${again.length} claims are repeated, and not ${least}`)
      }
      for (const { delivery } of again) {
        const [, after] = Messages.renew(this.messages, delivery.handle, this.leaseEnd(leaseMillis))
        this.messages = after
      }
      for (const { delivery } of taken) {
        if (!handles.has(delivery.handle)) yield* this.assertDelivered(delivery, leaseMillis)
      }
      yield* this.assertClaimedEnough(taken.length, max)
      return taken
    })
  }

  renewClaim(handle: string, leaseMillis: number): Operation {
    return Effect.gen({ self: this }, function* () {
      const held = yield* this.call(only(this.broker.renew([handle], leaseMillis)))
      const [answer, after] = Messages.renew(this.messages, handle, this.leaseEnd(leaseMillis))
      this.messages = after
      this.logAnswer(held)
      yield* this.assertEqual("the renewal of a claim", held, answer)
    })
  }

  ack(handle: string): Operation {
    return Effect.gen({ self: this }, function* () {
      const removed = yield* this.call(only(this.broker.ack([handle])))
      const [answer, after] = Messages.ack(this.messages, handle)
      this.messages = after
      this.logAnswer(removed)
      yield* this.assertEqual("the ack", removed, answer)
    })
  }

  release(release: Release): Operation {
    return Effect.map(this.call(this.broker.release([release])), () => {
      this.messages = Messages.release(this.messages, release, this.now)
    })
  }

  returnUnhandled(handle: string): Operation {
    const { returnUnhandled } = this.broker
    if (returnUnhandled === undefined) return Effect.void
    return Effect.map(this.call(returnUnhandled([handle])), () => {
      this.messages = Messages.returnUnhandled(this.messages, handle)
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
      if (before === undefined) this.invariants.reset(request.id)
      yield* this.assertInvariant(this.invariants.onRun(request.id, started.fence))
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

  forget(id: string): Operation {
    return Effect.map(Effect.andThen(this.followStore, this.call(this.backend.forget([id]))), () => {
      this.tasks = Requests.forget(this.tasks, id, this.now)
      this.invariants.reset(id)
      this.invariants.accepted.delete(id)
    })
  }

  park(parked: ParkedMessage): Operation {
    return Effect.map(this.call(this.backend.parkMessage([parked])), () => {
      this.tasks = Requests.park(this.tasks, parked, this.now)
    })
  }

  reopen(letterId: string): Operation<DeadLetter | undefined> {
    return Effect.gen({ self: this }, function* () {
      yield* this.followStore
      const letter = yield* this.call(only(this.backend.reopen([letterId])))
      const expected = this.applyModel(Requests.reopen(this.tasks, letterId, this.now))
      yield* this.assertEqual(
        "reopen",
        inModelTime(this, letter, expected),
        expected && toDeadLetter(expected)
      )
      return letter
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
    const swept = yield* this.call(this.backend.sweep(1000))
    const { least, most } = this.applyModel(Tasks.sweep(this.tasks, this.now))
    this.logAnswer(swept)
    if (swept < least || swept > most + this.unswept) {
      yield* this.disagree(`the sweep dealt with ${swept}, and not with ${least} to ${most + this.unswept}`)
    }
    this.unswept = 0
  })

  // #endregion
}

/** Returns how long a message waits after an outcome; `undefined`: it is removed. */
export const waitOf = (outcome: Outcome): number | undefined => {
  if (outcome._tag === "Retry") return outcome.afterMillis
  return outcome._tag === "Release" ? 0 : undefined
}
