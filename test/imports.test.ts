/** Holds the import rule: imports run downwards through the layers below. The linter finds circles of files. */
import { globSync, readFileSync } from "node:fs"
import { dirname, join, matchesGlob, relative } from "node:path"
import { assert, describe, it } from "@effect/vitest"

const src = join(import.meta.dirname, "../src")

interface Layer {
  readonly name: string
  /** Globs over paths in `src`. A file belongs to one layer. */
  readonly files: ReadonlyArray<string>
  /** The names of the layers, other than its own, that its files may import. */
  readonly imports: ReadonlyArray<string>
}

/** The layers that drivers may import, and that all layers above may import. */
const ports = ["helpers", "values", "task", "broker port", "backend port"]
const drivers = [...ports, "driver support"]
const services = [...drivers, "services"]

/** Lowest first. */
const layers: ReadonlyArray<Layer> = [
  { name: "helpers", files: ["internal/*.ts", "internal/concurrency/*.ts"], imports: [] },
  {
    name: "values",
    files: [
      "{EnqueueError,EnqueueOptions,GetOptions,RetryPolicy,StoreError}.ts",
      "{TaskContext,TaskFailed,TaskMessage,TaskResult,TaskState,TimeoutError,Tracing}.ts"
    ],
    imports: ["helpers"]
  },
  { name: "task", files: ["internal/task/*.ts"], imports: ["helpers", "values"] },
  { name: "broker port", files: ["BrokerDriver.ts"], imports: ["helpers", "values", "task"] },
  {
    name: "backend port",
    files: ["BackendDriver.ts", "driver/!(index).ts"],
    imports: ["helpers", "values", "task", "broker port"]
  },
  { name: "driver support", files: ["internal/driver/*.ts"], imports: ports },
  { name: "memory drivers", files: ["memory/!(MemoryStore|index).ts"], imports: drivers },
  { name: "services", files: ["{Backend,Broker}.ts"], imports: [...drivers, "memory drivers"] },

  { name: "store layers", files: ["internal/layers/*.ts"], imports: services },

  // A store has drivers, and layers that users import. Only these layers know `Backend` and `Broker`.
  {
    name: "memory layers",
    files: ["memory/{MemoryStore,index}.ts"],
    imports: [...services, "memory drivers"]
  },
  { name: "rabbitmq drivers", files: ["rabbitmq/!(RabbitBroker|index).ts"], imports: drivers },
  {
    name: "rabbitmq layers",
    files: ["rabbitmq/{RabbitBroker,index}.ts"],
    imports: [...services, "rabbitmq drivers"]
  },
  {
    name: "redis drivers",
    files: ["redis/!(RedisBackend|RedisBroker|RedisCluster|RedisStore|index).ts", "redis/*/**/*.ts"],
    imports: drivers
  },
  {
    name: "redis layers",
    files: ["redis/{RedisBackend,RedisBroker,RedisCluster,RedisStore,index}.ts"],
    imports: [...services, "store layers", "redis drivers"]
  },
  {
    name: "sql drivers",
    files: ["sql/!(SqlBackend|SqlBroker|SqlStore|index).ts", "sql/*/**/*.ts"],
    imports: drivers
  },
  {
    name: "sql layers",
    files: ["sql/{SqlBackend,SqlBroker,SqlStore,index}.ts"],
    imports: [...services, "store layers", "sql drivers"]
  },
  {
    name: "sqlite client",
    files: ["sqlite/!(SqliteBackend|SqliteBroker|SqliteStore|index).ts"],
    imports: ["helpers"]
  },
  {
    name: "sqlite layers",
    files: ["sqlite/{SqliteBackend,SqliteBroker,SqliteStore,index}.ts"],
    imports: [...services, "store layers", "sqlite client", "sql drivers", "sql layers"]
  },

  { name: "producer", files: ["internal/producer/*.ts"], imports: services },
  { name: "results", files: ["internal/results/*.ts"], imports: services },
  { name: "worker", files: ["internal/worker/*.ts"], imports: services },
  {
    name: "public",
    files: ["{AsyncResult,DeadLetters,Task,Worker}.ts"],
    imports: [...services, "producer", "results", "worker"]
  },
  { name: "http", files: ["http/*.ts"], imports: ["helpers", "public"] },
  { name: "index", files: ["index.ts"], imports: ["values", "services", "memory layers", "public"] },
  {
    name: "driver index",
    files: ["driver/index.ts"],
    imports: ["helpers", "broker port", "backend port", "driver support"]
  },
  {
    name: "testing",
    files: ["testing/**/*.ts"],
    imports: [
      "helpers",
      "values",
      "task",
      "broker port",
      "backend port",
      "services",
      "memory drivers",
      "memory layers",
      "public",
      "index",
      "driver index"
    ]
  }
]

interface Module {
  readonly path: string
  readonly text: string
  readonly imports: ReadonlyArray<string>
}

const modules: ReadonlyArray<Module> = globSync("**/*.ts", { cwd: src })
  .sort()
  .map((path) => {
    const text = readFileSync(join(src, path), "utf8")
    const imports = Array.from(
      text.matchAll(/^(?:import|export|\}).*?\bfrom "(\..+?)"|^import "(\..+?)"/gm),
      ([, from, effect]) => relative(src, join(src, dirname(path), (from ?? effect)!))
    )
    return { path, text, imports }
  })

const layersOf = (path: string) => layers.filter(({ files }) => files.some((glob) => matchesGlob(path, glob)))

/** Returns the imports that the predicate accepts, each as `importer -> imported`. */
const importsWhere = (isWanted: (importer: string, imported: string) => boolean) =>
  modules.flatMap(({ imports, path }) =>
    imports.filter((imported) => isWanted(path, imported)).map((imported) => `${path} -> ${imported}`)
  )

describe("the modules of src", () => {
  it("belong to one layer each", () => {
    const misplaced = modules.filter(({ path }) => layersOf(path).length !== 1)
    assert.deepStrictEqual(
      misplaced.map(
        ({ path }) =>
          `${path}: ${
            layersOf(path)
              .map(({ name }) => name)
              .join(", ") || "no layer"
          }`
      ),
      []
    )
  })

  it("form layers that import only those listed before them", () => {
    layers.forEach(({ imports, name }, index) => {
      const before = layers.slice(0, index).map((layer) => layer.name)
      assert.deepStrictEqual(
        imports.filter((one) => !before.includes(one)),
        [],
        name
      )
    })
  })

  it("import what their layer may import", () => {
    const violations = importsWhere((importer, imported) => {
      const [layer] = layersOf(importer)
      const [target] = layersOf(imported)
      return layer !== target && !(target && layer?.imports.includes(target.name))
    })
    assert.deepStrictEqual(violations, [])
  })

  it("are imported statically", () => {
    const dynamic = modules.filter(({ text }) => /\bimport\("\./.test(text))
    assert.deepStrictEqual(
      dynamic.map(({ path }) => path),
      []
    )
  })

  it("decode no payload, no exit and no progress in a store", () => {
    const codecs = ["internal/task/TaskCodec.ts", "TaskFailed.ts", "TaskMessage.ts"]
    const isStore = (path: string) => matchesGlob(path, "{memory,rabbitmq,redis,sql,sqlite}/**")
    const violations = importsWhere((importer, imported) => isStore(importer) && codecs.includes(imported))
    assert.deepStrictEqual(violations, [])
  })

  it("leave it to RunStore whether a worker has a backend", () => {
    const asking = modules.filter(
      ({ path, text }) => path.startsWith("internal/worker/") && /\.configured\b/.test(text)
    )
    assert.deepStrictEqual(
      asking.map(({ path }) => path),
      ["internal/worker/RunStore.ts"]
    )
  })
})
