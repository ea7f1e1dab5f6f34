<?php

/** ?ms=…: keeps its worker for so long; says who it was, and what time it thinks it is. */

declare(strict_types=1);

usleep((int) $_GET['ms'] * 1000);
echo json_encode(['pid' => getmypid(), 'now' => microtime(true)]);
