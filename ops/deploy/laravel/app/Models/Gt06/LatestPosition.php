<?php

namespace App\Models\Gt06;

/** Where each device is: one row a device. */
class LatestPosition extends Fix
{
    protected $table = 'latest_positions';

    protected $primaryKey = 'device_id';

    public $incrementing = false;
}
