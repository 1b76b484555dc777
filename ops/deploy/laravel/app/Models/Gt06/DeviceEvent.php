<?php

namespace App\Models\Gt06;

/** What a device said that is neither place nor heartbeat: ICCID, OBD, photos. */
class DeviceEvent extends Model
{
    use HasExtras, WithoutId;

    const KEY = ['device_id', 'received_at', 'spool_position'];

    protected $table = 'device_events';

    protected $casts = ['received_at' => 'datetime'];

    public function device()
    {
        return $this->belongsTo(Device::class);
    }
}
