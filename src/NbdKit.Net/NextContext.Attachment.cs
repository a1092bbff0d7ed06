using NbdKit.Layers;

namespace NbdKit;

// What NbdContext.SetNext does to the context that it attaches, and to the one that it takes away.
public sealed partial class NextContext
{
    private bool _attached;

    internal void Attach(bool mustBePrepared)
    {
        lock (_stateLock)
        {
            if (_attached && !IsUnowned)
            {
                throw new InvalidOperationException(
                    $"The context of {Backend.Name} is attached elsewhere; only a shared one can serve several.");
            }
            if (_closing is not null || _state is not (ContextState.Open or ContextState.Preparing or ContextState.Prepared))
            {
                throw new InvalidOperationException($"The context of {Backend.Name} {StateText}: it cannot be attached.");
            }
            if (mustBePrepared && _state != ContextState.Prepared)
            {
                throw new InvalidOperationException(
                    $"The context of {Backend.Name} must be prepared before it is attached to a layer that is.");
            }
            _attached = true;
            // What is attached while calls run may be used by calls that did not begin on it.
            CountsCalls = IsUnowned || mustBePrepared;
        }
    }

    internal void Detach()
    {
        lock (_stateLock)
        {
            _attached = false;
            CountsCalls = true;
        }
    }

    private void RequireDetached(bool byOwner, string verb)
    {
        if (byOwner && _attached && !IsUnowned)
        {
            throw new InvalidOperationException(
                $"The context of {Backend.Name} is attached: the library {verb} it. Detach it first.");
        }
    }
}
