"""Who may do what: tokens of people, as in the Hub's settings."""

from typing import Any, Literal

from pydantic import BaseModel

Role = Literal["read", "write", "fineGrained"]
WRITERS = {"admin", "write", "contributor"}
"""Roles in an organisation that may write."""


class User(BaseModel):
    """A token and the person behind it."""

    token: str
    name: str
    role: Role = "write"
    orgs: dict[str, str] = {}
    """The role in each organisation: admin, write, contributor or read."""
    permissions: list[str] = []
    """Of a fine-grained token: repo.content.read, repo.write, job.write ..."""
    can_pay: bool = True
    is_pro: bool = False
    expired: bool = False

    def may(self, namespace: str, permission: str) -> bool:
        """Whether the token allows this in the namespace; names of permissions are those of fine-grained tokens."""
        reads = permission.endswith(".read")
        if namespace != self.name and not (self.orgs.get(namespace) in WRITERS or (reads and namespace in self.orgs)):
            return False
        if self.role == "fineGrained":
            return permission in self.permissions or (permission == "job.read" and "job.write" in self.permissions)
        return self.role == "write" or reads

    def whoami(self) -> dict[str, Any]:
        """The answer of /api/whoami-v2."""
        access: dict[str, Any] = {"displayName": f"{self.name}-token", "role": self.role}
        if self.role == "fineGrained":
            entity = {"_id": _id(self.name), "type": "user", "name": self.name}
            scoped = [{"entity": entity, "permissions": self.permissions}]
            access["fineGrained"] = {"canReadGatedRepos": False, "global": [], "scoped": scoped}
        return {
            "type": "user",
            "id": _id(self.name),
            "name": self.name,
            "fullname": self.name.title(),
            "email": f"{self.name}@example.com",
            "emailVerified": True,
            "canPay": self.can_pay,
            "isPro": self.is_pro,
            "orgs": [_org(name, role, can_pay=self.can_pay) for name, role in self.orgs.items()],
            "auth": {"type": "access_token", "accessToken": access},
        }


def _org(name: str, role: str, *, can_pay: bool) -> dict[str, Any]:
    return {
        "type": "org",
        "id": _id(name),
        "name": name,
        "fullname": name.title(),
        "canPay": can_pay,
        "roleInOrg": role,
    }


def _id(name: str) -> str:
    return name.encode().hex().ljust(24, "0")[:24]
