<?php

/** ?ms=…: keeps its worker for so long. */

declare(strict_types=1);

usleep((int) $_GET['ms'] * 1000);
echo json_encode(['pid' => getmypid()]);
