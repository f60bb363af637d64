/** Who claims messages, and runs what it may. */
import { Effect } from "effect"
import type { ClaimedMessage, Outcome, Settled, Start, Started } from "../../src/BackendDriver.ts"
import type { ClaimRequest, Delivery } from "../../src/BrokerDriver.ts"
import type { Ending } from "./commands.ts"
import { type Definition, definitionOf, definitions } from "./definitions.ts"
import * as Messages from "./messages.ts"
import { type Did, type Player, waitOf } from "./modelRunner.ts"
import * as Tasks from "./tasks.ts"

/** A message that a worker has claimed, and what it knows of it. It is never forgotten: it may come back to it. */
export interface Hand {
  readonly worker: string
  readonly delivery: Delivery
  readonly ask: Start
  readonly definition: Definition
  started: Started | undefined
  acked: boolean
  settled: { readonly outcome: Outcome; readonly answer: Settled } | undefined
  /** There is nothing left to do. */
  done: boolean
}

interface LastClaim {
  readonly claim: ClaimRequest
  readonly fused: boolean
  /** The worker does not know what it took. */
  readonly lost: boolean
  readonly deliveries: ReadonlyArray<Delivery>
}

let crews = 0

/** Workers over one store. */
export class Workers {
  private readonly on: Player
  private readonly name = `${++crews}`
  private tokens = 0
  private claims = 0
  private readonly hands: Array<Hand> = []
  private readonly lastClaims = new Map<string, LastClaim>()
  private readonly leaseMillis: number

  constructor(on: Player) {
    this.on = on
    this.leaseMillis = on.units(2.5)
  }

  private take(worker: string, delivery: Delivery, token: string): Hand {
    const { body, generation = 0, handle, id = "", queue, task = "" } = delivery
    const definition = definitionOf(task)
    const ask: Start = {
      ...this.termsOf(definition),
      id,
      generation,
      token,
      worker,
      queue,
      body,
      deliveryMode: definition.delivery,
      // it stands in the body, which a worker decodes
      expiresMillis: Messages.heldBy(this.on.messages, handle)?.envelope.expiresMillis
    }
    const hand: Hand = {
      worker,
      delivery,
      ask,
      definition,
      started: undefined,
      acked: false,
      settled: undefined,
      done: false
    }
    return hand
  }

  private termsOf({ letterRetention, maxCrashes, name, retention }: Definition) {
    return {
      task: name,
      leaseMillis: this.leaseMillis,
      maxCrashes,
      retentionMillis: retention === undefined ? undefined : this.on.units(retention),
      deadLetterRetentionMillis: letterRetention === undefined ? undefined : this.on.units(letterRetention)
    }
  }

  private readonly nextToken = () => `t${this.name}-${++this.tokens}`

  /** A claim of messages, fused with their starts where that is asked for and can be done. */
  private callOf(claim: ClaimRequest, fused: boolean): Effect.Effect<ReadonlyArray<ClaimedMessage>, unknown> {
    const fusedClaim = fused ? this.on.backend.fusion?.claim : undefined
    if (fusedClaim !== undefined) {
      const terms = definitions.filter(({ delivery }) => delivery === "at-least-once")
      return fusedClaim({ ...claim, startDefaults: terms.map((definition) => this.termsOf(definition)) })
    }
    const unstarted = (delivery: Delivery): ClaimedMessage => ({ delivery, run: undefined })
    return Effect.map(this.on.broker.claim(claim), (deliveries) => deliveries.map(unstarted))
  }

  /** A worker receives what it claimed, some of it started. */
  private receive(
    worker: string,
    claimed: ReadonlyArray<ClaimedMessage>,
    lost = false
  ): Did<ReadonlyArray<Hand>> {
    return Effect.gen({ self: this }, function* () {
      const hands: Array<Hand> = []
      for (const { delivery, run } of claimed) {
        const hand = this.take(worker, delivery, run?.token ?? this.nextToken())
        if (run !== undefined) yield* this.on.started(hand.ask, run.started)
        hand.started = run?.started
        hands.push(hand)
      }
      if (!lost) this.hands.push(...hands)
      return hands
    })
  }

  /** Claims messages. Where the answer is lost, nobody knows of them until the claim is made again. */
  claimSome(worker: string, max: number, fused: boolean, unheard = false): Did<ReadonlyArray<Hand>> {
    return Effect.gen({ self: this }, function* () {
      // a connection that is there loses no answer
      const lost = unheard && this.on.broker.capabilities.lease === "store"
      const claimId = `c${this.name}-${++this.claims}`
      const claim: ClaimRequest = {
        queues: this.on.setting.queues,
        max,
        leaseMillis: this.leaseMillis,
        worker,
        claimId
      }
      const starting = fused && this.on.backend.fusion?.claim !== undefined
      this.on.say(`${worker} claims ${starting ? "and starts " : ""}up to ${max}`)
      const claimed = yield* this.on.claim(this.callOf(claim, fused), claim)
      const hands = yield* this.receive(worker, claimed, lost)
      if (lost) this.on.say("  the answer is lost")
      const deliveries = claimed.map(({ delivery }) => delivery)
      // who knows of a run makes the claim of it no more
      if (lost || !starting) this.lastClaims.set(worker, { claim, fused, lost, deliveries })
      else this.lastClaims.delete(worker)
      return hands
    })
  }

  /** Makes the last claim of a worker again. What it did not know of it knows then. */
  again(worker: string, max: number): Did {
    return Effect.gen({ self: this }, function* () {
      const last = this.lastClaims.get(worker)
      if (last === undefined) return
      const claim: ClaimRequest = { ...last.claim, max, isRetry: true }
      this.on.say(`${worker} makes its last claim again, for up to ${max}`)
      const claimed = yield* this.on.claimAgain(this.callOf(claim, last.fused), claim, last.deliveries)
      const known = new Set(last.lost ? [] : last.deliveries.map(({ handle }) => handle))
      yield* this.receive(
        worker,
        claimed.filter(({ delivery }) => !known.has(delivery.handle))
      )
      const handles = new Set(claimed.map(({ delivery }) => delivery.handle))
      const rest = last.deliveries.filter(({ handle }) => !handles.has(handle))
      if (last.fused) this.lastClaims.delete(worker)
      else {
        const deliveries = [...rest, ...claimed.map(({ delivery }) => delivery)]
        this.lastClaims.set(worker, { ...last, lost: false, deliveries })
      }
    })
  }

  private readonly handOf = (nth: number, which = (_: Hand) => true): Hand | undefined => {
    const hands = this.hands.filter(which)
    return hands.at(-1 - (nth % Math.max(1, hands.length)))
  }

  startHand(hand: Hand): Did {
    return Effect.gen({ self: this }, function* () {
      this.on.say(`${hand.worker} starts ${String(hand.delivery.body)} as ${hand.ask.token}`)
      yield* this.on.safely(
        Effect.map(this.on.start(hand.ask), (started) => {
          hand.started = started
        })
      )
    })
  }

  /**
   * A claim that was taken over, of a task of which nothing is known any more. A worker starts nothing so late: the
   * task would begin anew, and its message is gone.
   */
  private isStray(id: string, handle: string): boolean {
    return (
      Messages.heldBy(this.on.messages, handle) === undefined &&
      Tasks.find(this.on.tasks, id, this.on.now) === undefined
    )
  }

  /** A token is of one run alone: it is used again only for that run, or where it was refused. */
  mayStart({ acked, ask, delivery, started }: Hand): boolean {
    if (acked || this.isStray(ask.id, delivery.handle)) return false
    return started?._tag !== "Run" || Tasks.find(this.on.tasks, ask.id, this.on.now)?.run?.token === ask.token
  }

  settleHand(hand: Hand, ending: Ending, fused: boolean): Did {
    return Effect.gen({ self: this }, function* () {
      const { ask, delivery, worker } = hand
      const { generation, id, token } = ask
      const settlement = { id, token, outcome: this.outcomeOf(ending, hand) }
      const settle = fused ? this.on.backend.fusion?.settle : undefined
      const { outcome } = settlement
      this.on.say(
        `${worker} settles ${id} of ${token}: ${ending}${settle === undefined ? "" : ", and its message"}`
      )
      const answer = yield* this.on.safely(
        settle === undefined
          ? this.on.settle(settlement, generation)
          : this.on.settleFused(settlement, generation, delivery.handle, settle)
      )
      if (hand.settled !== undefined && hand.settled.answer !== "Lost") return
      hand.settled = { outcome, answer }
      if (answer === "Lost" || settle !== undefined) hand.done = true
    })
  }

  private outcomeOf(asked: Ending, { ask, definition }: Hand): Outcome {
    // what must not be run again is not put back
    const puts = asked.endsWith("retry") || asked === "release"
    const ending = puts && definition.delivery === "at-most-once" ? "failure" : asked
    const { body, queue, token } = ask
    const { deadLetterRetentionMillis, retentionMillis } = this.termsOf(definition)
    const exit = `{"${ending}":"${token}"}`
    switch (ending) {
      case "success":
        return { _tag: "Success", exit, retentionMillis }
      case "failure": {
        const deadLetter = { reason: "Failed", queue, body, retentionMillis: deadLetterRetentionMillis }
        return { _tag: "Failure", exit, retentionMillis, deadLetter }
      }
      case "quiet failure":
        return { _tag: "Failure", exit, retentionMillis, deadLetter: undefined }
      case "retry":
        return { _tag: "Retry", afterMillis: 0 }
      case "later retry":
        return { _tag: "Retry", afterMillis: this.on.units(1.5) }
      case "release":
        return { _tag: "Release" }
    }
  }

  ackHand(hand: Hand): Did {
    return Effect.suspend(() => {
      this.on.say(`${hand.worker} acks ${String(hand.delivery.body)}`)
      hand.acked = true
      return this.on.safely(this.on.ack(hand.delivery.handle))
    })
  }

  putBackHand({ delivery, worker }: Hand, afterMillis: number, preserveDueTime: boolean): Did {
    return Effect.suspend(() => {
      const { body, handle } = delivery
      const keeping = preserveDueTime ? ", as old as it was" : ""
      this.on.say(`${worker} puts ${String(body)} back for ${afterMillis / this.on.setting.unit}${keeping}`)
      return this.on.safely(this.on.release({ handle, afterMillis, preserveDueTime }))
    })
  }

  /** Does what the engine does next with a message. */
  goOn(hand: Hand, ending: Ending, fused: boolean): Did {
    return Effect.suspend(() => {
      const { definition, settled, started } = hand
      if (started === undefined && this.isStray(hand.ask.id, hand.delivery.handle)) {
        hand.done = true
        return Effect.void
      }
      if (started === undefined) return this.startHand(hand)
      const once = definition.delivery === "at-most-once"
      if (started._tag === "Run" && once && !hand.acked) return this.ackHand(hand)
      if (started._tag === "Run" && settled === undefined) {
        return this.settleHand(hand, ending, fused && !once)
      }
      hand.done = true
      if (started._tag === "Busy") {
        return this.putBackHand(
          hand,
          this.on.units(Math.floor(started.millis / this.on.units(1)) + 0.5),
          false
        )
      }
      if (started._tag === "Run" && once) return Effect.void
      const wait = settled?.answer === "Stored" ? waitOf(settled.outcome) : undefined
      return wait === undefined ? this.ackHand(hand) : this.putBackHand(hand, wait, false)
    })
  }

  /** A message that nothing more is to be done for, or that somebody else may have. */
  mayAck({ acked, delivery, done, started, settled }: Hand): boolean {
    if (Messages.heldBy(this.on.messages, delivery.handle) === undefined || acked) return true
    const isOver = settled !== undefined && settled.answer !== "Lost" && waitOf(settled.outcome) === undefined
    return started?._tag === "Drop" || isOver || (done && settled?.answer === "Cancelled")
  }

  /** Does something with the claim that is meant, if there is one. */
  withHand(nth: number, does: (hand: Hand) => Did, which?: (hand: Hand) => boolean): Did {
    return Effect.suspend(() => {
      const hand = this.handOf(nth, which)
      return hand === undefined ? Effect.void : does(hand)
    })
  }

  renewRun({ ask, worker }: Hand, progress: string | undefined): Did {
    return Effect.suspend(() => {
      const { id, token } = ask
      this.on.say(
        `${worker} renews ${token} of ${id}${progress === undefined ? "" : `, progress ${progress}`}`
      )
      return this.on.safely(this.on.renewRun(id, token, this.leaseMillis, progress))
    })
  }

  renewClaim({ delivery, worker }: Hand): Did {
    return Effect.suspend(() => {
      this.on.say(`${worker} renews its claim of ${String(delivery.body)}`)
      return this.on.safely(this.on.renewClaim(delivery.handle, this.leaseMillis))
    })
  }

  /** Ends the connection of a worker, or of all, where it holds claims. */
  vanish(worker?: string): Did {
    return Effect.suspend(() => {
      if (this.on.broker.returnUnhandled === undefined) return Effect.void
      this.on.say(`${worker ?? "everybody"} vanishes`)
      const theirs = this.hands.filter((hand) => worker === undefined || hand.worker === worker)
      return Effect.forEach(theirs, ({ delivery }) => this.on.abandon(delivery.handle), { discard: true })
    })
  }
}
