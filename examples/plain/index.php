<?php

/** A page: orders from the CRM, in the visitor's currency. Wants sharedstate.fx.sources in php.ini. */

declare(strict_types=1);

require __DIR__ . '/crm.php';

header('Content-Type: text/plain');
$currency = match ($_GET['currency'] ?? null) {
    'GBP' => 'GBP',
    'JPY' => 'JPY',
    default => 'USD',
};

try {
    foreach (crm_orders() as $order) {
        // Exact, in the currency's own decimals. An order's record wants fx_quote(): the rate and its date, too.
        $price = fx_convert($order['total'], $order['currency'], $currency);
        echo "order {$order['id']}: {$order['total']} {$order['currency']}, that is $price $currency\n";
    }
    printf("1 EUR is %.4f %s\n", fx_rate('EUR', $currency), $currency);
} catch (RuntimeException $e) {
    // SharedState\Exception is one, too: no token, no rate. No message of it names a token.
    error_log($e->getMessage());
    http_response_code(503);
    echo "Please come back in a minute.\n";
}
