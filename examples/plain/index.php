<?php

/** A page: orders from the CRM, in the visitor's currency. Wants sharedstate.fx.sources in php.ini. */

declare(strict_types=1);

require __DIR__ . '/crm.php';

$currency = match ($_GET['currency'] ?? null) {
    'GBP' => 'GBP',
    'JPY' => 'JPY',
    default => 'USD',
};

try {
    $page = sprintf("1 EUR is %.4f %s\n", fx_rate('EUR', $currency), $currency);
    foreach (crm_orders() as $order) {
        // Exact, in the currency's own decimals. What is kept of an order wants fx_quote(): the rate and its date, too.
        $price = fx_convert($order['total'], $order['currency'], $currency);
        $page .= "order {$order['id']}: {$order['total']} {$order['currency']}, that is $price $currency\n";
    }
} catch (RuntimeException $e) {
    // Each SharedState\Exception is one: no token, no rate. No message of theirs has a token in it.
    error_log($e->getMessage());
    http_response_code(503);
    $page = "Please come back in a minute.\n";
}

header('Content-Type: text/plain');
echo $page;
