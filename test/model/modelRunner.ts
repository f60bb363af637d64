/** The operations of the ports: each is asked of the store and of the model, and the answers have to agree. */
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
import { inModelTime, letterOf } from "./compareState.ts"
import * as Messages from "./messages.ts"
import { type Failure, Stage } from "./modelFixture.ts"
import * as Requests from "./requests.ts"
import * as Runs from "./runs.ts"
import { Journal } from "./storeInvariants.ts"
import * as Tasks from "./tasks.ts"

/** What came of an operation. */
export type Did<A = void> = Effect.Effect<A, Failure>

/** The answer to a batch of one. */
const only = Suite.only

/** Plays operations. */
export class Player extends Stage {
  tasks: Tasks.Tasks = Tasks.empty
  messages: Messages.Messages = Messages.none
  readonly journal = new Journal()
  /** The last operation, where it is safe to repeat. */
  last: Did<unknown> | undefined
  private bodies = 0

  get backend() {
    return this.store.backend
  }
  get broker() {
    return this.store.broker
  }

  /** Does something that is safe to repeat. */
  safely<A>(operation: Did<A>): Did<A> {
    return Effect.suspend(() => {
      this.last = operation
      return operation
    })
  }

  /** The body of a message: no other has it. */
  nextBody(id: string): string {
    return `${id}${++this.bodies}`
  }

  /** When a claim lapses that is made or renewed now. */
  private lapse(millis: number): number {
    return this.broker.capabilities.lease === "store" ? this.now + millis : Infinity
  }

  /** Something that has to hold of any store does not. */
  holds(wrong: string | undefined): Did {
    return wrong === undefined ? Effect.void : this.fail(wrong)
  }

  /** The answer of the model, which goes on from there. */
  step<A>([answer, after]: Tasks.Step<A>): A {
    this.tasks = after
    return answer
  }

  /** What reads say is gone may still be there for the sweep to remove. */
  private unswept = 0

  /**
   * A reservation that was not published for as long as its retention is removed by the sweep at the latest. Until then
   * the model follows the store in whether it is there.
   */
  readonly follow: Did = Effect.suspend(() => {
    const stranded = [...this.tasks.tasks.values()].filter((task) => Tasks.isStranded(task, this.now))
    return Effect.forEach(
      stranded,
      ({ id }) =>
        Effect.map(this.ask(only(this.backend.read([id]))), (found) => {
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

  private created(record: NewRecord) {
    const answer = this.step(Requests.create(this.tasks, record, this.now))
    if (answer._tag === "Created") {
      this.journal.anew(record.id)
      this.journal.accepted.delete(record.id)
    }
    return answer
  }

  create(record: NewRecord) {
    return Effect.gen({ self: this }, function* () {
      yield* this.follow
      const answer = yield* this.ask(only(this.backend.create([record])))
      yield* this.agree("create", answer, this.created(record))
      return answer
    })
  }

  publish(envelope: Envelope): Did {
    return Effect.map(this.ask(this.broker.publish([envelope])), () => {
      this.messages = Messages.publish(this.messages, envelope, this.now)
    })
  }

  markPublished(id: string): Did {
    return Effect.map(this.ask(this.backend.markPublished([id])), () => {
      this.tasks = Requests.markPublished(this.tasks, id, this.now)
    })
  }

  enqueueFused(record: NewRecord, message: Envelope, { enqueue }: Fusion) {
    return Effect.gen({ self: this }, function* () {
      yield* this.follow
      const answer = yield* this.ask(only(enqueue([{ record, message }])))
      yield* this.agree("the fused enqueue", answer, this.created(record))
      if (answer._tag === "Created") this.messages = Messages.publish(this.messages, message, this.now)
      return answer
    })
  }

  // #endregion

  // #region Claims

  /** What was given out has to be ready, and the best there is. */
  private took(delivery: Delivery, leaseMillis: number): Did {
    return Effect.gen({ self: this }, function* () {
      const { ageMillis, body, handle } = delivery
      const { capabilities } = this.broker
      const candidates = Messages.ready(this.messages, this.setting.queues, this.now)
      const message = candidates.find(({ envelope }) => envelope.body === body)
      if (message === undefined) return yield* this.fail(`${String(body)} was given out, which is not ready`)
      const { id, queue, task } = message.envelope
      const given = {
        id: delivery.id,
        task: delivery.task,
        queue: delivery.queue,
        generation: delivery.generation ?? 0
      }
      yield* this.agree("the delivery", given, {
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
        return yield* this.fail(`${String(body)} was given out before ${before.envelope.body}`)
      }
      if (Messages.heldBy(this.messages, handle) !== undefined) {
        return yield* this.fail(`handle ${handle} was given out twice`)
      }
      const age = this.now - message.dueAt
      if (capabilities.lease === "store") yield* this.agree("the age", this.near(ageMillis, age), age)
      this.messages = Messages.claim(this.messages, message, handle, this.lapse(leaseMillis))
    })
  }

  /** As many have to come as are ready. One that a connection put back may still be on its way. */
  private tookEnough(count: number, max: number): Did {
    const left = Messages.ready(this.messages, this.setting.queues, this.now).length
    const enough = count >= max || left === 0 || this.broker.capabilities.lease === "connection"
    return enough && count <= max
      ? Effect.void
      : this.fail(`of ${max} messages, ${count} were given out, and ${left} are ready`)
  }

  /** Claims as it is told to. */
  claim(
    call: Effect.Effect<ReadonlyArray<ClaimedMessage>, unknown>,
    { leaseMillis, max }: ClaimRequest
  ): Did<ReadonlyArray<ClaimedMessage>> {
    return Effect.gen({ self: this }, function* () {
      yield* this.follow
      const taken = yield* this.ask(call)
      this.answer(
        taken.map(({ delivery, run }) => [delivery.body, ...(run === undefined ? [] : [run.started])])
      )
      for (const { delivery } of taken) yield* this.took(delivery, leaseMillis)
      yield* this.tookEnough(taken.length, max)
      return taken
    })
  }

  /** The same again. `before`: what it took, as long as it still holds it. */
  claimAgain(
    call: Effect.Effect<ReadonlyArray<ClaimedMessage>, unknown>,
    { leaseMillis, max }: ClaimRequest,
    before: ReadonlyArray<Delivery>
  ): Did<ReadonlyArray<ClaimedMessage>> {
    return Effect.gen({ self: this }, function* () {
      yield* this.follow
      const taken = yield* this.ask(call)
      this.answer(
        taken.map(({ delivery, run }) => [delivery.body, ...(run === undefined ? [] : [run.started])])
      )
      const held = before.filter(({ handle }) => Messages.heldBy(this.messages, handle) !== undefined)
      const live = held.filter(({ handle }) => Messages.isLive(this.messages, handle, this.now))
      const handles = new Set(held.map(({ handle }) => handle))
      const again = taken.filter(({ delivery }) => handles.has(delivery.handle))
      const repeatable = this.broker.capabilities.repeatableClaims === true
      // what has lapsed may be brought again, or be given out anew
      const least = repeatable ? Math.min(live.length, max) : 0
      if (again.length < least || (!repeatable && again.length > 0)) {
        return yield* this.fail(`${again.length} claims are brought again, and not ${least}`)
      }
      for (const { delivery } of again) {
        const [, after] = Messages.renew(this.messages, delivery.handle, this.lapse(leaseMillis))
        this.messages = after
      }
      for (const { delivery } of taken) {
        if (!handles.has(delivery.handle)) yield* this.took(delivery, leaseMillis)
      }
      yield* this.tookEnough(taken.length, max)
      return taken
    })
  }

  renewClaim(handle: string, leaseMillis: number): Did {
    return Effect.gen({ self: this }, function* () {
      const held = yield* this.ask(only(this.broker.renew([handle], leaseMillis)))
      const [answer, after] = Messages.renew(this.messages, handle, this.lapse(leaseMillis))
      this.messages = after
      this.answer(held)
      yield* this.agree("the renewal of a claim", held, answer)
    })
  }

  ack(handle: string): Did {
    return Effect.gen({ self: this }, function* () {
      const removed = yield* this.ask(only(this.broker.ack([handle])))
      const [answer, after] = Messages.ack(this.messages, handle)
      this.messages = after
      this.answer(removed)
      yield* this.agree("the ack", removed, answer)
    })
  }

  release(release: Release): Did {
    return Effect.map(this.ask(this.broker.release([release])), () => {
      this.messages = Messages.release(this.messages, release, this.now)
    })
  }

  abandon(handle: string): Did {
    const { returnUnhandled } = this.broker
    if (returnUnhandled === undefined) return Effect.void
    return Effect.map(this.ask(returnUnhandled([handle])), () => {
      this.messages = Messages.abandon(this.messages, handle)
    })
  }

  // #endregion

  // #region Runs

  /** A store has answered that a message may run, or may not. */
  started(ask: Start, started: Started): Did {
    return Effect.gen({ self: this }, function* () {
      const before = Tasks.find(this.tasks, ask.id, this.now)
      const repeated = before?.run?.token === ask.token
      const expected = this.step(Runs.start(this.tasks, ask, this.now))
      const millis = (busy: number) => ({
        _tag: "Busy",
        millis: this.near(busy, expected._tag === "Busy" ? expected.millis : -1)
      })
      yield* this.agree("start", started._tag === "Busy" ? millis(started.millis) : started, expected)
      if (started._tag !== "Run" || repeated) return
      if (before === undefined) this.journal.anew(ask.id)
      yield* this.holds(this.journal.ran(ask.id, started.fence))
    })
  }

  start(ask: Start): Did<Started> {
    return Effect.gen({ self: this }, function* () {
      yield* this.follow
      const started = yield* this.ask(only(this.backend.start([ask])))
      this.answer(started)
      yield* this.started(ask, started)
      return started
    })
  }

  renewRun(id: string, token: string, leaseMillis: number, progress: string | undefined): Did {
    return Effect.gen({ self: this }, function* () {
      const renewal = { id, token, leaseMillis, progress }
      const renewed = yield* this.ask(only(this.backend.renew([renewal])))
      this.answer(renewed)
      yield* this.agree("renew", renewed, this.step(Runs.renew(this.tasks, renewal, this.now)))
    })
  }

  private settled(settlement: Settlement, generation: number, answer: string): Did {
    return Effect.gen({ self: this }, function* () {
      const { id, outcome, token } = settlement
      const expected = this.step(Runs.settle(this.tasks, settlement, this.now))
      const [first] = expected
      yield* this.agree("settle", answer, expected.find((one) => one === answer) ?? first)
      const isFinal = outcome._tag === "Success" || outcome._tag === "Failure"
      if (answer === "Stored" && isFinal) yield* this.holds(this.journal.wrote(id, generation, token))
    })
  }

  settle(settlement: Settlement, generation: number) {
    return Effect.gen({ self: this }, function* () {
      const answer = yield* this.ask(only(this.backend.settle([settlement])))
      this.answer(answer)
      yield* this.settled(settlement, generation, answer)
      return answer
    })
  }

  settleFused(settlement: Settlement, generation: number, handle: string, settle: Fusion["settle"]) {
    return Effect.gen({ self: this }, function* () {
      const answer = yield* this.ask(only(settle([{ settlement, handle }])))
      this.answer(answer)
      yield* this.settled(settlement, generation, answer)
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

  cancel(id: string): Did {
    return Effect.gen({ self: this }, function* () {
      yield* this.follow
      const answer = yield* this.ask(only(this.backend.cancel([id])))
      this.answer(answer)
      yield* this.agree("cancel", answer, this.step(Requests.cancel(this.tasks, id, this.now)))
    })
  }

  forget(id: string): Did {
    return Effect.map(Effect.andThen(this.follow, this.ask(this.backend.forget([id]))), () => {
      this.tasks = Requests.forget(this.tasks, id, this.now)
      this.journal.anew(id)
      this.journal.accepted.delete(id)
    })
  }

  park(parked: ParkedMessage): Did {
    return Effect.map(this.ask(this.backend.parkMessage([parked])), () => {
      this.tasks = Requests.park(this.tasks, parked, this.now)
    })
  }

  reopen(letterId: string): Did<DeadLetter | undefined> {
    return Effect.gen({ self: this }, function* () {
      yield* this.follow
      const letter = yield* this.ask(only(this.backend.reopen([letterId])))
      const expected = this.step(Requests.reopen(this.tasks, letterId, this.now))
      yield* this.agree("reopen", inModelTime(this, letter, expected), expected && letterOf(expected))
      return letter
    })
  }

  removeLetter(id: string): Did {
    return Effect.gen({ self: this }, function* () {
      const removed = yield* this.ask(only(this.backend.removeDeadLetters([id])))
      const isOutlived =
        this.tasks.letters.has(id) && Tasks.findLetter(this.tasks, id, this.now) === undefined
      const expected = this.step(Requests.removeLetter(this.tasks, id, this.now))
      // one that outlived its retention may still be there to be removed
      if (!isOutlived) yield* this.agree("the removal of a letter", removed, expected)
    })
  }

  readonly sweep: Did = Effect.gen({ self: this }, function* () {
    const swept = yield* this.ask(this.backend.sweep(1000))
    const { least, most } = this.step(Tasks.sweep(this.tasks, this.now))
    this.answer(swept)
    if (swept < least || swept > most + this.unswept) {
      yield* this.fail(`the sweep dealt with ${swept}, and not with ${least} to ${most + this.unswept}`)
    }
    this.unswept = 0
  })

  // #endregion
}

/** How long a message waits after an outcome; `undefined`: it is done. */
export const waitOf = (outcome: Outcome): number | undefined => {
  if (outcome._tag === "Retry") return outcome.afterMillis
  return outcome._tag === "Release" ? 0 : undefined
}
