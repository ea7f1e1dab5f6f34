<?php

/** What the extension says of itself, whether the host follows the change log, and how many descriptors this worker holds. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static fn (): array => [
    'status' => sharedstate_status(),
    // An earlier release has no metrics.
    'coherent' => function_exists('sharedstate_metrics') && str_contains(sharedstate_metrics(), "\nsharedstate_coherent 1\n"),
    'descriptors' => count(scandir('/proc/self/fd')),
]);
