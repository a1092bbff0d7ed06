namespace NbdKit.Filters;

/// <summary>What <see cref="RetryFilter"/> and <see cref="RetryRequestFilter"/> take for worth another try.</summary>
internal static class RetryDecision
{
    /// <summary>Whether a request that failed is tried again.</summary>
    /// <param name="failure">What it failed with.</param>
    /// <param name="decide">The host's decision, or null to go by the errors.</param>
    /// <param name="errors">The errors that are worth it; an exception that is not an <see cref="NbdException"/> counts as EIO.</param>
    /// <param name="cancellationToken">The request's: nobody waits any more if it has fired.</param>
    public static bool IsWorthIt(
        Exception failure, Func<Exception, bool>? decide, IReadOnlyCollection<NbdError> errors, CancellationToken cancellationToken)
    {
        if (cancellationToken.IsCancellationRequested
            || failure is NotSupportedException or NbdException { Error: NbdError.NotSupported })
        {
            return false;
        }
        return decide?.Invoke(failure) ?? errors.Contains(failure is NbdException e ? e.Error : NbdError.IoError);
    }
}
