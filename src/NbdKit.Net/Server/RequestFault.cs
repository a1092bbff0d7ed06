namespace NbdKit.Server;

/// <summary>Why a request is refused before any layer sees it; the default value means that it is not.</summary>
internal readonly record struct RequestFault(NbdError Error, string Message)
{
    public bool IsFault => Error != 0;
}
