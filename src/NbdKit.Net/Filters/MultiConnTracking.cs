namespace NbdKit.Filters;

/// <summary>Which connections a flush reaches while <see cref="MultiConnFilter"/> emulates multi-conn.</summary>
public enum MultiConnTracking
{
    /// <summary>None if nothing was written on any connection since the last flush, else all.</summary>
    Fast,

    /// <summary>Those with something written since, and those that may have kept what others have replaced.</summary>
    Connection,

    /// <summary>All, always.</summary>
    Off,
}
