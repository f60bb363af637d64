import { defaultServerConditions } from "vite"
import { defineConfig } from "vitest/config"

/** Tests that take minutes, and tests of the tests' own tools. `npm run test:faults` runs all of them. */
const long = [
  "test/load/{mariadb,postgres,rabbitmq,sqlite}.*",
  "test/load/storeDown.test.ts",
  "test/{mariadb,postgres,rabbitmq,support}/ownServer*.test.ts",
  "test/support/network.test.ts"
]

export default defineConfig({
  // `import … from "chicory"` means src (see "exports" in package.json)
  ssr: { resolve: { conditions: ["chicory-src", ...defaultServerConditions] } },
  test: {
    include: ["test/**/*.test.ts"],
    exclude: long,
    pool: "forks",
    // more than processors, as tests mostly wait for servers and for time
    maxWorkers: 4,
    reporters: ["default"],
    testTimeout: 30_000,
    hookTimeout: 30_000
  }
})
