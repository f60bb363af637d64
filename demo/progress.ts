/** Shows progress: a bar in a terminal, plain lines elsewhere. */
import { Console, Effect, Stdio, Terminal } from "effect"

/** Shows the progress of a number of steps. */
export interface Progress {
  /** Counts one more step. */
  readonly step: Effect.Effect<void>
  /** Prints a line. */
  readonly note: (line: string) => Effect.Effect<void>
}

const width = 40
const clearLine = "\r\u001B[K"

/** Draws a bar in place; the last one stays when the scope closes. */
const bar = Effect.fn("bar")(function* (total: number) {
  const terminal = yield* Terminal.Terminal
  const display = (text: string) => Effect.orDie(terminal.display(text))
  let done = 0
  const draw = Effect.suspend(() => {
    const filled = Math.floor((done / total) * width)
    return display(`${clearLine}  ${"█".repeat(filled)}${"░".repeat(width - filled)}  ${done}/${total}`)
  })
  yield* Effect.acquireRelease(draw, () => display("\n"))
  return {
    step: Effect.suspend(() => {
      done++
      return draw
    }),
    note: (line: string) => Effect.andThen(display(`${clearLine}  ${line}\n`), draw)
  } satisfies Progress
})

/** Prints a line for every tenth of the work. */
const lines = (total: number): Progress => {
  let done = 0
  return {
    step: Effect.suspend(() => {
      const before = Math.floor((done++ / total) * 10)
      const tenth = Math.floor((done / total) * 10)
      return tenth === before ? Effect.void : Console.log(`  ${tenth * 10} %  ${done}/${total}`)
    }),
    note: (line) => Console.log(`  ${line}`)
  }
}

/** Shows the progress of `total` steps until the scope closes. */
export const make = Effect.fn("progress")(function* (total: number) {
  const { stdoutIsTerminal } = yield* Stdio.Stdio
  return (yield* stdoutIsTerminal) ? yield* bar(total) : lines(total)
})
