<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/**
 * What is only ever said on the error output, while every answer looks right: a worker that crashed after its
 * answer, our own panic, and what a debug build of PHP finds (leaked values, broken assertions).
 */
final class Complaints
{
    private const COMPLAINT = '/Freeing 0x|==\d+== (?:Invalid|Mismatched|Process terminating)|memory leaks? detected|zend_mm_heap corrupted|Assertion .+ failed'
        . '|exited on signal \d+ \(SIG(SEGV|ABRT|BUS|ILL|FPE)|internal error at /';

    /** Enough to see what it is: a leak in every request says little more than one. */
    private const SHOWN = 10;

    /** @return list<string> the first lines that complain */
    public static function in(string $text): array
    {
        return array_slice(array_values(preg_grep(self::COMPLAINT, explode("\n", $text))), 0, self::SHOWN);
    }

    /** @return list<string> the same of all logs in a folder */
    public static function inLogs(string $folder): array
    {
        return self::in(implode("\n", array_map('file_get_contents', glob("$folder/*.log"))));
    }
}
