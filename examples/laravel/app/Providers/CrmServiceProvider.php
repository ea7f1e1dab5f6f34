<?php

declare(strict_types=1);

namespace App\Providers;

use App\Services\Crm;
use Illuminate\Support\ServiceProvider;

final class CrmServiceProvider extends ServiceProvider
{
    public function register(): void
    {
        $this->app->singleton(Crm::class);
        $this->app->when(Crm::class)->needs('$config')->giveConfig('services.crm');
    }
}
