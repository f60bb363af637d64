/** Runs the operations of the broker's port on the store and on the model, and compares the answers. */
import { isDeepStrictEqual } from "node:util"
import { Effect } from "effect"
import type { ClaimedMessage } from "../../src/BackendDriver.ts"
import type { ClaimRequest, Delivery, Envelope, PurgedMessage, Release } from "../../src/BrokerDriver.ts"
import * as Suite from "../../src/testing/suites/Suite.ts"
import * as Messages from "./messages.ts"
import { type Content, ModelState, type Operation } from "./modelState.ts"

/** Returns the answer to a batch of one. */
const only = Suite.only

/** Runs operations of a broker on store and model. */
export class BrokerRunner extends ModelState {
  /** Returns when a claim lapses that is made or renewed now. */
  private leaseEnd(millis: number): number {
    return this.broker.capabilities.lease === "store" ? this.now + millis : Infinity
  }

  publish(envelope: Envelope, content: Content): Operation {
    this.contents.set(envelope.body, content)
    return Effect.map(this.call(this.broker.publish([envelope])), () => {
      this.messages = Messages.publish(this.messages, envelope, this.now)
    })
  }

  /** Checks that a delivered message was ready and first in order. */
  private assertDelivered(delivery: Delivery, leaseMillis: number): Operation {
    return Effect.gen({ self: this }, function* () {
      const { ageMillis, body, handle } = delivery
      const { capabilities } = this.broker
      const candidates = Messages.ready(this.messages, this.setting.queues, this.now)
      const message = candidates.find(({ envelope }) => envelope.body === body)
      if (message === undefined) return yield* this.disagree(`${String(body)} was delivered and is not ready`)
      const { generation = 0, id, incarnation = "", queue, task } = message.envelope
      const given = {
        id: delivery.id,
        task: delivery.task,
        // a store need not keep them
        incarnation: delivery.incarnation ?? incarnation,
        generation: delivery.generation ?? generation,
        queue: delivery.queue
      }
      yield* this.assertEqual("the delivery", given, { id, task, incarnation, generation, queue })
      const before =
        capabilities.ordered === false || capabilities.lease === "connection"
          ? undefined
          : candidates.find((other) => !other.maybeGone && Messages.precedes(other, message))
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
    return Effect.suspend(() => {
      const ready = Messages.ready(this.messages, this.setting.queues, this.now)
      const left = ready.filter(({ maybeGone }) => !maybeGone).length
      const enough = count >= max || left === 0 || this.broker.capabilities.lease === "connection"
      if (!enough || count > max) {
        return this.disagree(`of ${max} messages, ${count} were delivered, and ${left} are ready`)
      }
      // a message that is due and was not delivered is gone
      if (count < max)
        this.messages = Messages.remove(
          this.messages,
          ready.filter(({ maybeGone }) => maybeGone)
        )
      return Effect.void
    })
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
      const returned = new Set(again.map(({ delivery }) => delivery.handle))
      yield* this.followPutBack(live.filter(({ handle }) => !returned.has(handle)))
      for (const { delivery } of taken) {
        if (!handles.has(delivery.handle)) yield* this.assertDelivered(delivery, leaseMillis)
      }
      yield* this.assertClaimedEnough(taken.length, max)
      return taken
    })
  }

  /**
   * Messages that exceed the repetition of a claim are due again at once, or stay claimed until their lease is over: the store's
   * counts tell which.
   */
  private followPutBack(exceeding: ReadonlyArray<Delivery>): Operation {
    return Effect.gen({ self: this }, function* () {
      if (exceeding.length === 0) return
      const { queues } = this.setting
      const claimedOf = (counts: ReadonlyArray<{ readonly claimed: number }>) =>
        counts.reduce((sum, { claimed }) => sum + claimed, 0)
      const counted = claimedOf(yield* this.call(this.broker.counts(queues)))
      const expected = claimedOf(
        queues.map((queue) => Messages.counts(this.messages, queue, this.now).counts)
      )
      if (counted > expected - exceeding.length) return
      for (const { handle } of exceeding) this.messages = Messages.returnUnhandled(this.messages, handle)
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

  /** Removes the unclaimed messages of a queue. A message that a connection returned may still be in transit. */
  purge(queue: string): Operation<ReadonlyArray<PurgedMessage>> {
    return Effect.gen({ self: this }, function* () {
      const found = Messages.unclaimed(this.messages, queue, this.now)
      const purged = yield* this.call(this.broker.purge(queue, 1000))
      this.logAnswer(purged.map(({ generation, id, incarnation }) => `${id}.${incarnation}:${generation}`))
      const isOptional = ({ maybeGone }: Messages.Message) =>
        maybeGone || this.broker.capabilities.lease === "connection"
      const unmatched = [...purged]
      const takeMatching = ({ envelope: { generation = 0, id, incarnation = "" } }: Messages.Message) => {
        const at = unmatched.findIndex((one) => isDeepStrictEqual(one, { id, incarnation, generation }))
        return at >= 0 && unmatched.splice(at, 1).length > 0
      }
      const matched = [...found.filter((m) => !isOptional(m)), ...found.filter(isOptional)].filter(
        (message) => takeMatching(message) || !isOptional(message)
      )
      yield* this.assertEqual("how many messages were purged", purged.length, matched.length)
      yield* this.assertEqual("purged messages that were not there", unmatched, [])
      this.messages = Messages.remove(
        this.messages,
        this.broker.capabilities.lease === "connection" ? matched : found
      )
      for (const { envelope } of matched) this.promises.giveUp(this.contentOf(envelope.body).enqueue)
      return purged
    })
  }
}
