<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** What is kept under a sheet's name: the sheet that is served, and one that is held back. */
final class Holding
{
    public function __construct(public readonly Sheet $sheet, public readonly ?Sheet $quarantine = null)
    {
    }
}
