<?php

/** What the naive caches of build/demo count of themselves, over all workers of a php-fpm master. */

declare(strict_types=1);

function count_up(string $what, int $by = 1): void
{
    apcu_inc("count:$what", $by);
}

function counted(string $what): int
{
    return (int) apcu_fetch("count:$what");
}
