<?php

/** What the extension says of itself, and how many descriptors this worker holds. */

declare(strict_types=1);

require __DIR__ . '/mint.php';

answer(static fn (): array => ['status' => sharedstate_status(), 'descriptors' => count(scandir('/proc/self/fd'))]);
