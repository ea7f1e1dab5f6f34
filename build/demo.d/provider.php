<?php

/** The provider of the second incident: it has the sheet of an hour at minute four. */

declare(strict_types=1);

const MINUTES = 60;
const MINUTE_FOUR = 4;

/** @param list<string> $modes a document for each, so that their calls can be told apart */
function publish(string $folder, float $hour, array $modes): void
{
    static $published = 0;
    $as_of = floor((microtime(true) - $hour * MINUTE_FOUR / MINUTES) / $hour) * $hour;
    if ($as_of === $published) {
        return;
    }
    $published = $as_of;
    foreach ($modes as $mode) {
        $sheet = json_encode(['timestamp' => (int) $as_of, 'base' => 'EUR', 'rates' => ['USD' => round(1.1 + 0.0001 * random_int(0, 99), 4), 'GBP' => 0.8338]]);
        file_put_contents("$folder/$mode.new", $sheet);
        rename("$folder/$mode.new", "$folder/$mode.json");
    }
}
