/** Plays a sequence: what its commands come to, after what was done before. */
import { Effect } from "effect"
import { type Command, ids, type Sequence } from "./commands.ts"
import { glance, look } from "./compareState.ts"
import type { Failure, Setting, Store } from "./modelFixture.ts"
import { type Did, Player } from "./modelRunner.ts"
import { Producers } from "./producers.ts"
import { Workers } from "./workers.ts"

/** Workers and producers over one store. */
interface Cast {
  readonly on: Player
  readonly producers: Producers
  readonly workers: Workers
}

const perform = ({ on, producers, workers }: Cast, command: Command): Did<unknown> => {
  switch (command._tag) {
    case "Enqueue":
      return producers.enqueue(command)
    case "Double":
      return producers.double(command.message)
    case "Replay":
      return producers.replay(command.letter, command.steps)
    case "RemoveLetter":
      return producers.dropLetter(command.letter)
    case "Claim":
      return workers.claimSome(command.worker, command.max, command.fused, command.lost)
    case "ClaimAgain":
      return workers.again(command.worker, command.max)
    case "Vanish":
      return workers.vanish(command.worker)
    case "GoOn": {
      const { claim, ending, fused } = command
      const goOn = workers.withHand(
        claim,
        (hand) => workers.goOn(hand, ending, fused),
        ({ done }) => !done
      )
      return goOn
    }
    case "StartAgain":
      return workers.withHand(
        command.claim,
        (hand) => workers.startHand(hand),
        (hand) => workers.mayStart(hand)
      )
    case "Settle": {
      const { claim, ending, fused } = command
      return workers.withHand(claim, (hand) => workers.settleHand(hand, ending, fused))
    }
    case "RenewRun":
      return workers.withHand(command.claim, (hand) => workers.renewRun(hand, command.progress))
    case "RenewClaim":
      return workers.withHand(command.claim, (hand) => workers.renewClaim(hand))
    case "Ack":
      return workers.withHand(
        command.claim,
        (hand) => workers.ackHand(hand),
        (hand) => workers.mayAck(hand)
      )
    case "PutBack": {
      const { after, claim, keepDue } = command
      return workers.withHand(claim, (hand) => workers.putBackHand(hand, on.units(after), keepDue))
    }
    case "Cancel":
      on.say(`cancel ${command.id}`)
      return on.safely(on.cancel(command.id))
    case "Forget":
      on.say(`forget ${command.id}`)
      return on.safely(on.forget(command.id))
    case "Park": {
      const { letter, retention } = command
      on.say(`park ${letter}`)
      return on.safely(producers.park(letter, retention))
    }
    case "Pass":
      on.say(`${command.units} units pass`)
      return on.pass(command.units)
    case "Sweep":
      on.say("sweep")
      return on.safely(on.sweep)
    case "Look":
      on.say(command.watch ? "look, and watch" : "look")
      return look(on, command.watch)
    case "Again":
      if (on.last === undefined) return Effect.void
      on.say("the same again")
      return on.last
  }
}

/** Longer than any lease and any delay. */
const PATIENCE = 4
/** A worker needs no more rounds than messages have crashes, retries and generations before them. */
const ROUNDS = 12

/** A worker that behaves ends all that is left: nothing that was accepted is lost. */
const drain = Effect.fnUntraced(function* ({
  on,
  producers,
  workers
}: Cast): Effect.fn.Return<void, Failure> {
  on.say("from here on all behave well")
  yield* producers.finishReplays
  yield* workers.vanish()
  const wait = Effect.suspend(() => {
    on.say(`${PATIENCE} units pass`)
    return on.pass(PATIENCE)
  })
  for (let round = 0; on.messages.size > 0; round++) {
    if (round === ROUNDS) return yield* on.fail(`there are still messages after ${ROUNDS} rounds`)
    if (round > 0) yield* wait
    for (;;) {
      const fused = round % 2 === 0
      const hands = yield* workers.claimSome("good", 4, fused)
      if (hands.length === 0) break
      for (const hand of hands) while (!hand.done) yield* workers.goOn(hand, "success", fused)
    }
  }
  // what must not be run again is ended once its lease is over
  if ([...on.tasks.tasks.values()].some(({ run }) => run !== undefined)) yield* wait
  yield* look(on, false)
  const records = yield* on.ask(on.backend.read(ids))
  for (const [n, id] of ids.entries()) {
    const state = records[n]?.state
    if (on.journal.accepted.has(id) && state !== undefined && state !== "SUCCESS" && state !== "FAILURE") {
      return yield* on.fail(`${id} was accepted, and is lost: it is ${state}, and there is no message`)
    }
  }
})

/** Leaves the store empty, as it was. */
const clear = Effect.fnUntraced(function* ({ on, producers }: Cast): Effect.fn.Return<void, Failure> {
  for (const id of ids) {
    on.say(`cancel ${id}, and forget it`)
    yield* on.cancel(id)
    yield* on.forget(id)
  }
  yield* producers.removeLetters
  yield* look(on, false)
})

/** Whether there is nothing left, so that another sequence can be played in the same store. */
export type Emptied = boolean

/** Plays a sequence to its end, in an empty store. */
export const play = Effect.fnUntraced(function* (
  store: Store,
  setting: Setting,
  { commands, looking }: Sequence
): Effect.fn.Return<Emptied, Failure> {
  const on = new Player(store, setting)
  const cast = { on, producers: new Producers(on), workers: new Workers(on) }
  for (const command of commands) {
    yield* perform(cast, command)
    if (looking) yield* glance(on)
  }
  yield* look(on, false)
  yield* drain(cast)
  yield* clear(cast)
  return on.tasks.tasks.size === 0 && on.tasks.letters.size === 0
})
