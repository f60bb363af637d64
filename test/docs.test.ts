/** The programs in the documentation compile and run, and the references of ARCHITECTURE.md lead somewhere. */
import { execFileSync, spawnSync } from "node:child_process"
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join, relative } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Task, TaskResult } from "chicory"
import { Effect, Schema } from "effect"
import { isProgram, toProgram } from "./support/docsProgram.ts"

const root = join(import.meta.dirname, "..")
const read = (file: string) => readFileSync(join(root, file), "utf8")
const vitest = join(root, "node_modules/vitest/vitest.mjs")
const examples = globSync("examples/*.ts", { cwd: root }).sort()

/** Runs `use` with a directory, and removes the directory afterwards. */
const inDirectory = <A>(parent: string, use: (directory: string) => A): A => {
  const directory = mkdtempSync(join(parent, ".docs-"))
  try {
    return use(directory)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** Returns the `ts` blocks of a page, or of the comments of a module. */
const allBlocksOf = (file: string): ReadonlyArray<string> => {
  const text = read(file)
  const plain = file.endsWith(".md") ? text : text.replaceAll(/^ *\* ?/gm, "")
  return Array.from(plain.matchAll(/^( *)```ts\n(.*?)^\1```/gms), ([, indent, block]) =>
    block!.replaceAll(new RegExp(`^${indent}`, "gm"), "")
  )
}

/** The first line of a block that quotes a file. */
const quotation = /^\/\/ examples: (\S+)\n/

const blocksOf = (file: string): ReadonlyArray<string> =>
  allBlocksOf(file).filter((block) => !quotation.test(block))

/** Declares the names that a fragment may use: those of the README's first program. */
const prelude = `
import { AsyncResult, Backend, Broker, DeadLetters, MemoryStore, RetryPolicy, Task, TaskContext, TaskFailed, TaskResult, Tracing, Worker } from "chicory"
import type { BackendDriver, BrokerDriver } from "chicory/driver"
import { Effect, Fiber, Layer, Redacted, Schema, Stream } from "effect"
class DivideByZero extends Schema.TaggedError<DivideByZero>()("DivideByZero", { dividend: Schema.Number }) {}
class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", { retryAfter: Schema.DurationFromMillis }) {}
class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", {}) {}
const Divide = Task.make("math.divide", {
  payload: { dividend: Schema.Number, divisor: Schema.Number }, success: Schema.Number, error: DivideByZero
})
const DivideLive = Divide.toLayer(({ dividend, divisor }) => Effect.succeed(dividend / divisor))
declare const result: ReturnType<typeof Divide.result>
declare const WorkerLive: Layer.Layer<Worker.Worker, never, Broker.Broker | Backend.Backend>
declare const program: Effect.Effect<void, never, Broker.Broker | Backend.Backend>
declare const makeMyBackend: Effect.Effect<BackendDriver>
declare const makeMyBroker: Effect.Effect<BrokerDriver>
`

/** The pages whose blocks are one program. */
const programs = globSync("docs/*.md", { cwd: root })
  .filter((page) => isProgram(blocksOf(page)))
  .sort()

/** Returns a program as it is, and a fragment within the prelude. */
const toModule = (block: string): string => {
  const imports = block.match(/^import .*$/gm) ?? []
  const rest = block.replaceAll(/^import .*$/gm, "")
  const isWhole = /^declare const|Task\.make/m.test(rest)
  if (/^import .* from "chicory/m.test(block) && isWhole) return block
  const own = imports.filter((line) => !/from "(effect|chicory)"/.test(line)).join("\n")
  return `${own}${prelude}\nexport const fragment = Effect.gen(function* () {\n${rest}\n})\n`
}

describe("the documentation", () => {
  // a run of the compiler, which shares the processors with other tests
  it("has programs and fragments that compile", () => {
    const files = [...globSync(["README.md", "docs/*.md", "src/**/*.ts"], { cwd: root })].sort()
    inDirectory(join(root, "test"), (directory) => {
      let blocks = 0
      for (const file of files) {
        const modules = programs.includes(file) ? [toProgram(blocksOf(file))] : blocksOf(file).map(toModule)
        for (const module of modules) {
          const name = `${file.replaceAll(/[^a-zA-Z0-9]+/g, "-")}-${blocks++}.ts`
          writeFileSync(join(directory, name), module)
        }
      }
      assert.isAbove(blocks, 8)
      const config = {
        extends: "../../tsconfig.json",
        include: ["*.ts"],
        compilerOptions: { noUnusedLocals: false }
      }
      writeFileSync(join(directory, "tsconfig.json"), JSON.stringify(config))
      const tsc = spawnSync(join(root, "node_modules/.bin/tsc"), ["-p", directory], { encoding: "utf8" })
      assert.deepStrictEqual(
        tsc.stdout.split("\n").filter((line) => line.includes(basename(directory))),
        []
      )
      assert.isNotNull(tsc.status)
    })
  }, 180_000)

  it.each(programs)(
    "%s has a program that runs",
    (page) => {
      inDirectory(join(root, "test"), (directory) => {
        const usesVitest = blocksOf(page).some((block) => /^import .*"@effect\/vitest"/m.test(block))
        const file = join(directory, usesVitest ? "page.test.ts" : "page.ts")
        writeFileSync(file, toProgram(blocksOf(page)))
        const options = { cwd: usesVitest ? root : directory, encoding: "utf8", stdio: "pipe" } as const
        if (usesVitest) execFileSync(process.execPath, [vitest, "run", relative(root, file)], options)
        else execFileSync(process.execPath, ["--conditions=chicory-src", file], options)
      })
    },
    60_000
  )

  it("has the first program of the examples", () => {
    assert.strictEqual(blocksOf("README.md")[0], read("examples/first-program.ts"))
  })

  it("has the order and mail of the examples", () => {
    assert.strictEqual(blocksOf("docs/transactions.md")[0], read("examples/order-and-mail.ts"))
  })

  it("has the test that testClock.test.ts runs", () => {
    const shown = blocksOf("README.md").find((block) => block.includes("TestClock.adjust"))
    assert.isDefined(shown)
    assert.include(read("test/testClock.test.ts"), shown.slice(shown.indexOf("const TestLive")))
  })
})

describe("the pages", () => {
  it("ARCHITECTURE.md names declarations that exist", () => {
    const references = Array.from(
      read("ARCHITECTURE.md").matchAll(/`(src\/[^`#\s]+\.ts)#(\w+)`/g),
      ([, path, name]) => [path!, name!] as const
    )
    assert.isAbove(references.length, 40)
    const missing = references.filter(([path, name]) => {
      const declaration = new RegExp(
        `\\b(const|let|class|interface|type|function) ${name}\\b|^ +(private |readonly |static )*${name}[(<:]`,
        "m"
      )
      return !declaration.test(read(path))
    })
    assert.deepStrictEqual(missing, [])
  })

  it("ARCHITECTURE.md has every room, and every part of the worker", () => {
    const rooms = [...globSync("src/*/", { cwd: root }), ...globSync("src/internal/*/", { cwd: root })]
    const parts = globSync("src/internal/worker/*.ts", { cwd: root })
    const map = read("ARCHITECTURE.md")
    const named = [...rooms, ...parts].map((path) => path.replaceAll(/\/$/g, ""))
    assert.isAbove(named.length, 20)
    assert.deepStrictEqual(
      named.filter((path) => !map.includes(`\`${path}`)),
      []
    )
  })

  it.effect("docs/results.md shows a task as TaskResult.schema encodes it", () =>
    Effect.gen(function* () {
      class NoSuchCity extends Schema.TaggedError<NoSuchCity>()("NoSuchCity", { city: Schema.String }) {}
      const Forecast = Task.make("forecast", {
        success: Schema.Struct({ celsius: Schema.Number }),
        error: NoSuchCity
      })
      const [, text] = read("docs/results.md").match(/^```json\n(.*?)^```/ms) ?? []
      const shown = JSON.parse(text!) as unknown
      const codec = TaskResult.schema(Forecast)
      const result = yield* Schema.decodeUnknownEffect(codec)(shown)
      assert.strictEqual(result.state, "FAILURE")
      assert.deepStrictEqual(yield* Schema.encodeEffect(codec)(result), shown)
    })
  )

  it("docs/production.md has the commands of WorkerHealth.layerFile", () => {
    const commandsIn = (file: string) =>
      Array.from(read(file).matchAll(/command: \[sh, -c, (.*)\]/g), ([, command]) => command!)
    assert.lengthOf(commandsIn("docs/production.md"), 2)
    assert.deepStrictEqual(commandsIn("docs/production.md"), commandsIn("src/http/WorkerHealth.ts"))
  })

  it("docs/writing-a-store.md quotes its files word for word", () => {
    const quoted = allBlocksOf("docs/writing-a-store.md").flatMap((block) => {
      const path = block.match(quotation)?.[1]
      return path === undefined ? [] : [{ path, text: block.replace(quotation, "") }]
    })
    assert.isAbove(quoted.length, 3)
    for (const { path, text } of quoted) assert.include(read(path), text, path)
  })
})

describe("the examples", () => {
  it.each(examples)("%s runs to completion", (example) => {
    inDirectory(tmpdir(), (directory) => {
      const output = execFileSync(process.execPath, ["--conditions=chicory-src", join(root, example)], {
        cwd: directory,
        encoding: "utf8"
      })
      // what the program itself logs, beside its worker
      assert.match(output, /INFO [^:]*: (?!Started a worker|Stopped a worker)/)
      assert.notMatch(output, /ERROR (?!.*since its handler died)/)
    })
  })
})
