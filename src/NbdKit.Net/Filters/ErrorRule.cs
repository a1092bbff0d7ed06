namespace NbdKit.Filters;

/// <summary>When <see cref="ErrorFilter"/> makes a request fail, and how.</summary>
public sealed record ErrorRule
{
    /// <summary>How often requests fail: from 0, never, to 1, always. More than 1 is always, too.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or not a number.</exception>
    public required double Rate
    {
        get;
        init
        {
            if (double.IsNaN(value) || value < 0)
            {
                throw new ArgumentOutOfRangeException(nameof(value), value, "A rate of errors is a number from 0 to 1.");
            }
            field = value;
        }
    }

    /// <summary>
    /// The error that requests fail with: EPERM, EIO, ENOMEM, EINVAL, ENOSPC or ESHUTDOWN. <see cref="NbdError.IoError"/> by
    /// default.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is none of these.</exception>
    public NbdError Error
    {
        get;
        init
        {
            // ENOTSUP is a layer's way to decline a zero, not to fail it, and EOVERFLOW belongs to fragmented reads.
            if (value is NbdError.NotSupported or NbdError.Overflow || !Enum.IsDefined(value))
            {
                throw new ArgumentOutOfRangeException(nameof(value), value, "Not an error that any request can fail with.");
            }
            field = value;
        }
    } = NbdError.IoError;

    /// <summary>The path of a file: requests fail only while it exists. Null, the default, for all the time.</summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? File
    {
        get;
        init
        {
            if (value is not null)
            {
                ArgumentException.ThrowIfNullOrWhiteSpace(value);
            }
            // The working directory may change while the chain runs.
            field = value is null ? null : Path.GetFullPath(value);
        }
    }
}
