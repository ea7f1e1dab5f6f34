<?php

/** What the extension tells Prometheus. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static fn (): array => ['metrics' => sharedstate_metrics()]);
