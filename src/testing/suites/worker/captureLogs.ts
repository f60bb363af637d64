/** Captures log lines. */
import { Cause, Effect, Logger, References } from "effect"

/** A log line. */
export interface Line {
  readonly level: string
  readonly text: string
  readonly annotations: Readonly<Record<string, unknown>>
  /** The rendered cause; empty where the line has none. */
  readonly cause: string
}

/** Lines of what runs in `capture`, and of what that starts. */
export interface CapturedLogs {
  readonly lines: ReadonlyArray<Line>
  /** The lines of a level, by their texts. */
  readonly texts: (level: "Debug" | "Info" | "Warn" | "Error") => ReadonlyArray<string>
  /** The lines whose texts begin so. */
  readonly beginning: (text: string) => ReadonlyArray<Line>
  readonly capture: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** Starts with no lines. */
export const captureLogs = (): CapturedLogs => {
  const lines: Array<Line> = []
  const logger = Logger.make<unknown, void>(({ cause, fiber, logLevel, message }) => {
    lines.push({
      level: logLevel,
      text: String(Array.isArray(message) ? message[0] : message),
      annotations: fiber.getRef(References.CurrentLogAnnotations),
      cause: cause.reasons.length === 0 ? "" : Cause.pretty(cause)
    })
  })
  return {
    lines,
    texts: (level) => lines.filter((line) => line.level === level).map(({ text }) => text),
    beginning: (text) => lines.filter((line) => line.text.startsWith(text)),
    capture: (effect) =>
      effect.pipe(
        Effect.provideService(Logger.CurrentLoggers, new Set([logger])),
        Effect.provideService(References.MinimumLogLevel, "Debug")
      )
  }
}
